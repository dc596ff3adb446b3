package app

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// asking runs fn with a client of the running device.
func (p *program) asking(fn func(c *client) error) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	return fn(c)
}

func (p *program) snapshotsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshots",
		Short: "List the kept states of the tree",
		Long: `List the states of the tree that are kept, the newest first. Each can be looked at
as a read-only folder under .roam/snapshots in the mount. They are made every hour
in which something changed, and thinned: 24 hours, 30 days and 52 weeks stay. One
that has a name stays for ever.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.asking(func(c *client) error { return p.snapshots(cmd.Context(), c) })
		},
	}
}

func (p *program) snapshots(ctx context.Context, c *client) error {
	return listAll(p, func(fn func(SnapshotInfo) error) error { return c.snapshots(ctx, fn) }, func(w io.Writer, s SnapshotInfo) error {
		_, err := fmt.Fprintf(w, "%s  %-17s  %-16s  %s\n", timeText(s.Time), s.Reason, deviceText(s.Device), s.Name)
		return err
	}, "no snapshots")
}

func deviceText(d *DeviceRef) string {
	if d == nil {
		return "unknown device"
	}
	return d.Name
}

func (p *program) snapshotCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot [NAME]",
		Short: "Keep the present state of the tree",
		Long: `Keep the present state of the tree. With a NAME it stays for ever; without one for
at least a month. It takes no room but for what changes later.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				if name = args[0]; name == "" {
					return usage("the name is empty")
				}
			}
			return p.asking(func(c *client) error {
				s, err := c.snapshot(cmd.Context(), name)
				if err != nil {
					return err
				}
				if p.json {
					return p.print(&s)
				}
				fmt.Fprintf(p.out, "kept as .roam/snapshots/%s\n", quotePath(s.Snapshot))
				return nil
			})
		},
	}
}

func (p *program) versionsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "versions PATH",
		Short: "List the versions of a file that are kept",
		Long: `List the versions of a file or folder, the newest first: as it is now and as the
snapshots have it, and of a file where the content of each is: here, partly here,
elsewhere or unavailable, and how many devices have all of it. PATH is a path inside a mount, or roam:/a/b; it need not exist
any more.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.asking(func(c *client) error { return p.versions(cmd.Context(), c, args[0]) })
		},
	}
}

func (p *program) versions(ctx context.Context, c *client, arg string) error {
	at, err := (&resolver{client: c}).resolve(ctx, arg)
	if err != nil {
		return err
	}
	return listAll(p, func(fn func(PastVersion) error) error { return c.versions(ctx, at, fn) }, func(w io.Writer, v PastVersion) error {
		size, from, copies := "-", v.Snapshot, ""
		if v.Type == "file" {
			size, copies = humanSize(v.Size), copiesText(v.Copies)
		}
		if v.Current {
			from = "now"
		}
		_, err := fmt.Fprintf(w, "%s  %10s  %-15s  %-9s  %-16s  %s\n", timeText(v.MTime), size, v.State, copies, deviceText(v.Device), quotePath(from))
		return err
	}, "no versions")
}

func (p *program) restoreCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "restore PATH[@WHEN]",
		Short: "Bring back a file or folder as it was",
		Long: `Bring back a file or folder as it was: an old version of a file, or what was
deleted. WHEN is the name of a snapshot, a time such as 2026-03-01 or
2026-03-01T12:00, an age such as 2h or 3d, or yesterday; without it, the newest
version that is not the present one. It becomes an ordinary change; what is there
now is kept in a snapshot before, and files that the old folder did not have stay.`,
		Example: `  roam restore ~/Roam/thesis.tex@yesterday
  roam restore ~/Roam/photos
  roam restore roam:/thesis.tex@2h --to roam:/thesis-before.tex`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.asking(func(c *client) error { return p.restore(cmd.Context(), c, args[0], to) })
		},
	}
	c.Flags().StringVar(&to, "to", "", "put it at `PATH` instead")
	return c
}

func (p *program) restore(ctx context.Context, c *client, arg, to string) error {
	r := resolver{client: c}
	at, err := r.resolve(ctx, arg)
	if err == nil && to != "" {
		to, err = r.resolve(ctx, to)
	}
	if err != nil {
		return err
	}
	done, err := c.restore(ctx, at, "", to)
	if err != nil {
		return err
	}
	if p.json {
		return p.print(&done)
	}
	what := plural(int64(done.Files), "file", "files")
	if done.Files+done.Dirs == 0 {
		what = "nothing was different"
	}
	fmt.Fprintf(p.out, "%s is as it was on %s (%s)\n", quotePath(done.Path), timeText(done.Time), what)
	return nil
}
