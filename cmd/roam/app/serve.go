package app

import (
	"context"

	"github.com/spf13/cobra"
)

func (p *program) serveCommand() *cobra.Command {
	var r runner
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the device without a mount",
		Long: `Run the device without a mount, as a home server does, until it is ended with
"roam stop" or a signal such as Ctrl-C.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.report(p.serve(cmd.Context(), &r)) },
	}
	r.flags(c)
	return c
}

func (p *program) serve(ctx context.Context, r *runner) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	s, err := openState(state)
	if err != nil {
		return err
	}
	if !r.wantBackground {
		return p.runHere(ctx, r, s, "")
	}
	if err := s.Close(); err != nil {
		return err
	}
	if err := startBackground(ctx, p.daemonArgs("serve", state)); err != nil {
		return err
	}
	p.say("The device is running. `roam stop` ends it.")
	return nil
}
