package app

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func (p *program) pendingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pending",
		Short: "List changes of other devices that are held back",
		Long: `List what other devices did that removes or rewrites much of the tree. It is held
back on this device, with all that builds on it, until roam accept or roam reject;
everything else goes on. mass_change_percent in config.toml says how much is much.

What a device did after it was removed from the hive is listed as well. It is never taken
over: roam rescue, run on that device, copies it into a plain folder.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.pending(cmd.Context()) },
	}
}

func (p *program) pending(ctx context.Context) error {
	return p.asking(func(c *client) error {
		return listAll(p, func(fn func(Pending) error) error { return c.pending(ctx, fn) }, writePending, "nothing is held back")
	})
}

// writePending writes x for a person: what the device does, and some files.
func writePending(w io.Writer, x Pending) error {
	if x.Late > 0 {
		_, err := fmt.Fprintf(w, "%s made %s after it was removed, at %s; `roam rescue DIR` on it copies that out\n",
			x.Device.Name, plural(int64(x.Late), "change", "changes"), timeText(x.Since))
		return err
	}
	text := pendingText(x) + ", since " + timeText(x.Since) + "\n"
	for _, f := range x.Paths {
		text += "  " + quotePath(f.Path) + "\n"
	}
	if n := x.Removes + x.Rewrites - len(x.Paths); n > 0 && len(x.Paths) > 0 {
		text += fmt.Sprintf("  and %d more\n", n)
	}
	_, err := io.WriteString(w, text)
	return err
}

func pendingText(x Pending) string {
	var does []string
	if x.Removes > 0 {
		does = append(does, fmt.Sprintf("removes %d", x.Removes))
	}
	if x.Rewrites > 0 {
		does = append(does, fmt.Sprintf("rewrites %d", x.Rewrites))
	}
	return x.Device.Name + " " + strings.Join(does, " and ") + " files"
}

func (p *program) acceptCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "accept DEVICE|all",
		Short: "Let through what is held back of a device",
		Long: `Let through what is held back of the device called DEVICE, or of all devices, up to
now, and what builds on it. The files that it removes are gone on this device, too.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.decide(cmd.Context(), args[0], true) },
	}
}

func (p *program) rejectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reject DEVICE",
		Short: "Undo what is held back of a device",
		Long: `Undo what is held back of the device called DEVICE, on all devices: the files that
it removed within the last hour come back at their places, and those that it rewrote
get their former content. What the device added stays. The device itself may hold
that back in turn, since it rewrites much of what is there: accept it there.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.decide(cmd.Context(), args[0], false) },
	}
}

func (p *program) decide(ctx context.Context, name string, accept bool) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	done, err := c.decide(ctx, name, accept)
	if err != nil {
		return err
	}
	if p.json {
		return p.print(&done)
	}
	word := "rejected"
	if accept {
		word = "accepted"
	}
	for _, d := range done.Devices {
		fmt.Fprintf(p.out, "%s what %s did\n", word, d.Name)
	}
	return nil
}
