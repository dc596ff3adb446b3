package app

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) whereisCommand() *cobra.Command {
	var verify bool
	c := &cobra.Command{
		Use:   "whereis PATH…",
		Short: "Show which devices hold a file",
		Long: `Show which devices hold the content of each PATH, a file or a directory with all
that is below it, as of when each device said so. PATH is a path inside a mount,
or roam:/a/b.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.whereis(cmd.Context(), args, verify) },
	}
	c.Flags().BoolVar(&verify, "verify", false, "ask the devices now")
	return c
}

func (p *program) whereis(ctx context.Context, args []string, verify bool) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	r := &resolver{client: c}
	var paths []string
	for _, arg := range args {
		path, err := r.resolve(ctx, arg)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	return c.whereis(ctx, paths, verify, func(w Whereis) error {
		if p.json {
			return p.print(&w)
		}
		return writeWhereis(p.out, w)
	})
}

// writeWhereis writes w for a person.
func writeWhereis(out io.Writer, w Whereis) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s, %s\n", quotePath(w.Path), humanSize(w.Size), copiesOf(w))
	for _, h := range w.Holders {
		part := "all of it"
		if !h.Complete {
			part = humanSize(h.Bytes) + " of it"
		}
		when := ", this device"
		if !h.This && h.AsOf != nil {
			when = ", as of " + timeText(*h.AsOf)
			if h.Verified {
				when = ", asked now"
			}
		}
		fmt.Fprintf(&b, "  %-20s %s%s\n", h.Name, part, when)
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// copiesOf returns "3 copies (laptop, nas, desktop)".
func copiesOf(w Whereis) string {
	var whole []DeviceRef
	for _, h := range w.Holders {
		if h.Complete {
			whole = append(whole, h.DeviceRef)
		}
	}
	if len(whole) == 0 {
		return "no device has all of it"
	}
	return copiesText(w.Copies) + " (" + names(whole) + ")"
}
