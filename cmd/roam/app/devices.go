package app

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) devicesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "devices",
		Short: "List the devices of the hive",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.devices(cmd.Context()) },
	}
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
	case m.This:
		return "this device"
	case m.Connected:
		return "connected"
	case m.LastSeen == nil:
		return "not seen yet"
	}
	return "last seen " + agoText(*m.LastSeen, now)
}
