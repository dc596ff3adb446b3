package app

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) lsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [PATH]",
		Short: "List files and where they are",
		Long: `List the directory PATH, or the file, with the state of each entry. PATH is a
path inside a mount, or roam:/a/b. Without it the current directory is listed if
it lies inside a mount, else the root of the tree.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return p.ls(cmd.Context(), args) },
	}
}

func (p *program) ls(ctx context.Context, args []string) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	r := &resolver{client: c}
	var at string
	if len(args) == 0 {
		at, err = r.hereOrRoot(ctx)
	} else {
		at, err = r.resolve(ctx, args[0])
	}
	if err != nil {
		return err
	}
	if p.json {
		return c.list(ctx, at, func(e Entry) error { return p.print(&e) })
	}
	out := bufio.NewWriter(p.out)
	if err := c.list(ctx, at, func(e Entry) error { return writeEntry(out, e) }); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// writeEntry writes a line of a listing: size, time, state, copies and name.
func writeEntry(w io.Writer, e Entry) error {
	name := quotePath(path.Base(e.Path))
	size, copies := humanSize(e.Size), copiesText(e.Copies)
	if e.Type != "file" {
		size, copies = "-", ""
	}
	if e.Type == "dir" {
		name += "/"
	}
	_, err := fmt.Fprintf(w, "%10s  %s  %-15s  %-9s  %s\n", size, e.MTime.Local().Format("2006-01-02 15:04"), e.text(), copies, name)
	return err
}

// text returns the state of an entry with what else is remarkable.
func (e *Entry) text() string {
	switch {
	case e.Conflict:
		return StateConflict
	case e.Type != "file" && e.State == "":
		return StateHere
	case e.Pinned && e.State == StateHere:
		return StatePinned
	}
	return e.State
}

// timeText returns a moment for a person.
func timeText(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
