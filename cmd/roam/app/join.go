package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// maxCode bounds an invite code, in bytes.
const maxCode = 4096

func (p *program) joinCommand() *cobra.Command {
	var (
		n            newDevice
		addresses    []string
		jsonProgress bool
	)
	c := &cobra.Command{
		Use:   "join CODE",
		Short: "Make this new device a member of your hive",
		Long: `Make this new device a member of the hive whose device printed CODE with "roam
invite". It returns once this device knows all your files; their content is
fetched when it is read.

CODE is a secret until it is used. With - it is read from the standard input,
so that it does not appear in the list of processes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.join(cmd.Context(), n, args[0], addresses, jsonProgress)
		},
	}
	n.flags(c)
	c.Flags().StringVar(&n.role, "role", "", "cache or archive (default: what the invite says, else cache)")
	c.Flags().StringArrayVar(&addresses, "address", nil, "where to reach the inviting device, such as 192.168.1.5:4001; may be repeated")
	c.Flags().BoolVar(&jsonProgress, "json-progress", false, "print the progress as JSON objects")
	return c
}

func (p *program) join(ctx context.Context, n newDevice, code string, addresses []string, jsonProgress bool) error {
	if err := checkRole(n.role, true); err != nil {
		return err
	}
	o := JoinOptions{Role: n.role}
	var err error
	if o.Addresses, err = parseAddresses(addresses); err != nil {
		return err
	}
	if code == "-" {
		line, err := bufio.NewReader(io.LimitReader(p.in, maxCode+1)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the code: %w", err)
		}
		code = line
	}
	o.Code = strings.TrimSpace(code)
	if o.Code == "" || len(o.Code) > maxCode {
		return usage("that is not an invite code")
	}
	show := p.newMeter(jsonProgress)
	made, dir, err := p.make(ctx, n, func(s *State, name string) (Created, error) {
		o.Name = name
		return p.engine.Join(ctx, s, o, show.update)
	})
	show.close()
	if err != nil {
		return err
	}
	return p.member(made, dir, `Next: roam mount ~/Roam    to see the files
`)
}

// member says that this device has become one, and what to do next.
func (p *program) member(made *madeObject, dir, next string) error {
	if p.json {
		return p.print(made)
	}
	fmt.Fprintf(p.out, `This device is now a member of the hive.

  device     %s (%s)
  device id  %s
  hive       %s
  lies in    %s

%s`, made.Device.Name, made.Device.Role, made.Device.ID, made.Hive.ID, dir, next)
	return nil
}
