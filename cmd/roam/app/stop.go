package app

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) stopCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "End the running device",
		Long: `Make everything durable, say what exists only here, end the mounts, and end the
device. It returns when the device has ended.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.stop(cmd.Context()) },
	}
}

func (p *program) stop(ctx context.Context) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	e, err := c.stop(ctx)
	if err != nil {
		return err
	}
	return p.ended(ctx, c, e)
}
