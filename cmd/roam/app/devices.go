package app

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) devicesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "devices",
		Short: "List the devices of the hive",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.devices(cmd.Context()) },
	}
	c.AddCommand(&cobra.Command{
		Use:   "rename OLD NEW",
		Short: "Give a device another name",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeDevice(func(c *client) (Member, error) { return c.rename(cmd.Context(), args[0], args[1]) })
		},
	}, &cobra.Command{
		Use:   "role NAME " + RoleCache + "|" + RoleArchive,
		Short: "Make a device a bounded cache, or an archive that keeps everything",
		Long: `Make the device NAME a cache, which is bounded, or an archive, which keeps a copy
of everything. A running device takes its new role at its next start.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeDevice(func(c *client) (Member, error) { return c.setRole(cmd.Context(), args[0], args[1]) })
		},
	})
	c.AddCommand(p.revokeCommand())
	return c
}

// changeDevice asks for a change and prints the device as it is then.
func (p *program) changeDevice(change func(*client) (Member, error)) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	m, err := change(c)
	if err != nil {
		return err
	}
	if p.json {
		return p.print(&m)
	}
	_, err = fmt.Fprintf(p.out, "%s  %s\n", m.Name, m.Role)
	return err
}

func (p *program) devices(ctx context.Context) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	if p.json {
		return c.devices(ctx, func(m Member) error { return p.print(&m) })
	}
	table := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	now := time.Now()
	if err := c.devices(ctx, func(m Member) error {
		_, err := fmt.Fprintf(table, "%s\t%s\t%s%s\n", m.Name, m.Role, memberText(m, now), p.memberID(m))
		return err
	}); err != nil {
		return err
	}
	return table.Flush()
}

func (p *program) memberID(m Member) string {
	if p.verbose {
		return "\t" + m.ID
	}
	return ""
}

func memberText(m Member, now time.Time) string {
	switch {
	case m.Revoked != nil:
		return removedText(m, now)
	case m.This:
		return "this device"
	case m.Connected:
		return "connected"
	case m.LastSeen == nil:
		return "not seen yet"
	}
	return "last seen " + agoText(*m.LastSeen, now)
}
