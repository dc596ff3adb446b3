package app

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

func (p *program) conflictsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "conflicts",
		Short: "List files of which there are several versions",
		Long: `List the files that were changed on several devices at once. Each change is kept
as a file of its own: one under the name, the others beside it under a name that
says where they are from. Settle it with roam resolve, or by renaming or removing
files as usual.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.conflicts(cmd.Context()) },
	}
}

func (p *program) conflicts(ctx context.Context) error {
	return p.asking(func(c *client) error {
		return listAll(p, func(fn func(Conflict) error) error { return c.conflicts(ctx, fn) }, writeConflict, "no conflicts")
	})
}

// writeConflict writes c for a person: the name, and a line for each version.
func writeConflict(w io.Writer, c Conflict) error {
	if _, err := fmt.Fprintln(w, quotePath(c.Path)); err != nil {
		return err
	}
	for _, v := range c.Versions {
		from, size := "unknown device", "-"
		if v.Device != nil {
			from = v.Device.Name
		}
		if v.This {
			from += " (this device)"
		}
		if v.Type == "file" {
			size = humanSize(v.Size)
		}
		if _, err := fmt.Fprintf(w, "  %-24s  %s  %10s  %s\n", from, timeText(v.MTime), size, quotePath(v.Path)); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) resolveCommand() *cobra.Command {
	var keep string
	c := &cobra.Command{
		Use:   "resolve PATH --keep mine|theirs|both",
		Short: "Settle a conflict",
		Long: `Settle the conflict that the file PATH is part of: keep the version that this
device made, or that of the other device, and remove the others; or keep all of
them as ordinary files with names of their own. PATH is a path inside a mount, or
roam:/a/b, of any of the versions.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.resolve(cmd.Context(), args[0], Keep(keep)) },
	}
	c.Flags().StringVar(&keep, "keep", "", "`what` stays: mine, theirs or both")
	return c
}

func (p *program) resolve(ctx context.Context, arg string, keep Keep) error {
	if keep == "" {
		return usage("say what is to be kept: --keep mine, theirs or both")
	}
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	at, err := (&resolver{client: c}).resolve(ctx, arg)
	if err != nil {
		return err
	}
	done, err := c.resolve(ctx, at, keep)
	if err != nil {
		return err
	}
	if p.json {
		return p.print(&done)
	}
	for _, k := range done.Kept {
		fmt.Fprintf(p.out, "kept %s\n", quotePath(k.Path))
	}
	for _, r := range done.Removed {
		fmt.Fprintf(p.out, "removed the version that was %s\n", quotePath(r.Path))
	}
	return nil
}
