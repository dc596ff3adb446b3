package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxSheet bounds the text of a recovery sheet, in bytes.
const maxSheet = 64 << 10

func (p *program) revokeCommand() *cobra.Command {
	var o RevokeOptions
	var sheet string
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Remove a device from the hive for good",
		Long: `Remove the device NAME from the hive for good: it is disconnected at once,
learns nothing new, and cannot read what is written from now on. What it had
told the others stays; what it does later is held back: roam rescue, run on it, copies
that into a plain folder. To return it has to be paired anew.

That takes the recovery sheet, which is read and not kept. A device can remove
itself without one.

If files are known to be on that device only, or it is the last archive or the last
device, roam refuses without --force.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			return p.revoke(cmd.Context(), o, sheet)
		},
	}
	f := c.Flags()
	f.StringVar(&sheet, "sheet", "", "file with the recovery sheet; - reads it from the standard input")
	f.StringVar(&o.Reason, "reason", "", "lost, retired or compromised (default: retired if it removes itself, else lost)")
	f.BoolVar(&o.Force, "force", false, "also if that puts files at risk")
	return c
}

func (p *program) revoke(ctx context.Context, o RevokeOptions, sheet string) (err error) {
	if o.Sheet, err = p.readSheet(sheet); err != nil {
		return err
	}
	switch {
	case o.Reason != "":
	case sheet == "":
		o.Reason = "retired"
	default:
		o.Reason = "lost"
	}
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	done, err := c.revoke(ctx, o)
	if err != nil {
		return err
	}
	if p.json {
		return p.print(&done)
	}
	text := done.Device.Name + " was removed from the hive"
	if done.This {
		text = "This device was removed from the hive; its files can be read here and not be changed"
	}
	_, err = fmt.Fprintln(p.out, text+".")
	return err
}

// readSheet reads a recovery sheet from a file, or from the standard input if it is
// called -; "" for no sheet.
func (p *program) readSheet(name string) (text string, err error) {
	switch name {
	case "":
		return "", nil
	case "-":
		if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			p.say("Type in the numbered lines of the recovery sheet, and end with Ctrl-D:")
		}
		return readText(p.in)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("recovery sheet: %w", err)
	}
	defer discard(f)
	return readText(f)
}

func readText(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSheet+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("recovery sheet: %w", err)
	case len(b) == 0 || len(b) > maxSheet:
		return "", usage("recovery sheet: %d bytes are none", len(b))
	}
	return string(b), nil
}

// removedText says what became of a device that was removed from the hive.
func removedText(m Member, now time.Time) string {
	text := "removed " + agoText(*m.Revoked, now) + " (" + m.Reason + ")"
	if m.This {
		text = "this device, " + text
	}
	if m.HeldBack != nil && m.HeldBack.Commits > 0 {
		text += ", " + plural(int64(m.HeldBack.Commits), "later change", "later changes") + " held back"
	}
	return text
}
