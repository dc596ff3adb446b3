package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"
)

func (p *program) inviteCommand() *cobra.Command {
	var o InviteOptions
	c := &cobra.Command{
		Use:   "invite",
		Short: "Let one new device join the hive",
		Long: `Print a one-time code, and wait until a device has joined with it or the time is
over. Give the code to your own new device only, as the argument of "roam join":
whoever has it first is a member of the hive.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.invite(cmd.Context(), o) },
	}
	c.Flags().StringVar(&o.Role, "role", "", "what the new device is to be: cache or archive (default: it chooses)")
	c.Flags().DurationVar(&o.TTL, "ttl", 10*time.Minute, "how long to wait")
	return c
}

func (p *program) invite(ctx context.Context, o InviteOptions) error {
	if err := checkRole(o.Role, true); err != nil {
		return err
	}
	if o.TTL <= 0 || o.TTL > maxTTL {
		return usage("--ttl %v: an invite is open for at most %v", o.TTL, maxTTL)
	}
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(dir)
	defer c.close()
	var failed error
	show := func(e InviteEvent) {
		if err := p.showInvite(e); failed == nil {
			failed = err
		}
	}
	err = c.invite(ctx, o, show)
	if what, lookErr := look(dir); ExitCode(err) == CodeNotRunning && lookErr == nil && what == present {
		err = p.inviteHere(ctx, dir, o, show)
	}
	return errors.Join(failed, err)
}

// inviteError adds what to do to the error of an invite.
func inviteError(err error) error {
	if errors.Is(err, ErrExpired) {
		return failure(CodeUnreachable, "invite again; the new device must reach this one over the network", "%w", ErrExpired)
	}
	return err
}

// inviteHere runs the device in this process for as long as the invite is open.
func (p *program) inviteHere(ctx context.Context, dir string, o InviteOptions, show func(InviteEvent)) (err error) {
	s, err := openState(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return runDaemon(ctx, p.engine, s, p.logger(p.err), task{
		work: func(ctx context.Context, d Device) error { return inviteError(d.Invite(ctx, o, show)) },
	})
}

// showInvite prints what happened to an invite.
func (p *program) showInvite(e InviteEvent) error {
	switch {
	case p.json:
		return p.print(&e)
	case e.Code != "" && isTerminal(p.out):
		p.say("On the new device, before %s:\n", e.until())
		fmt.Fprintf(p.out, "roam join '%s'\n\n", e.Code)
		qrterminal.GenerateWithConfig(e.Code, qrterminal.Config{
			Level: qrterminal.L, Writer: p.out, HalfBlocks: true, QuietZone: 2,
			BlackChar: qrterminal.BLACK_BLACK, WhiteChar: qrterminal.WHITE_WHITE,
			BlackWhiteChar: qrterminal.BLACK_WHITE, WhiteBlackChar: qrterminal.WHITE_BLACK,
		})
		p.say("\nWaiting for it. The code can be used once.")
	case e.Code != "":
		p.say("Code for `roam join` on the new device, good once and before %s:", e.until())
		if _, err := fmt.Fprintln(p.out, e.Code); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	case e.Joined != nil:
		fmt.Fprintf(p.out, "%s has joined.\n", e.Joined.Name)
	case e.Refused != "":
		p.say("Somebody tried to join and was refused: %s.", e.Refused)
	}
	return nil
}

func (e *InviteEvent) until() string {
	if e.Expires == nil {
		return "the time is over"
	}
	return e.Expires.Local().Format(time.TimeOnly)
}
