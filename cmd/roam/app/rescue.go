package app

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (p *program) rescueCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rescue DIR",
		Short: "Copy what only this device has into a plain folder",
		Long: `Copy the files that this device has and the others do not into the new or empty
folder DIR, outside of any mount, under the paths that they have in the tree. Nothing in
the tree changes.

That brings out the work which a device did after it was removed from the hive: the
others hold it back, and never take it over by themselves. Run it on that device, then
copy what you want of DIR into the mount of a member. What it deleted or renamed
stays as the others have it.`,
		Example: `  roam rescue ~/from-the-old-laptop`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.asking(func(c *client) error { return p.rescue(cmd.Context(), c, args[0]) })
		},
	}
}

func (p *program) rescue(ctx context.Context, c *client, arg string) error {
	if arg == "" {
		return usage("the name of the folder is empty")
	}
	dir, err := filepath.Abs(arg)
	if err != nil {
		return err
	}
	if err := refuseRescueInto(dir); err != nil {
		return err
	}
	done, err := c.rescue(ctx, dir)
	if err != nil {
		return err
	}
	if p.json {
		if err := p.print(&done); err != nil {
			return err
		}
	} else {
		text := "no file is only on this device"
		if done.Files > 0 {
			text = fmt.Sprintf("%s copied to %s", amountText(Amount{Files: done.Files, Bytes: done.Bytes}), quotePath(done.Dir))
		}
		if _, err := fmt.Fprintln(p.out, text); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
		for _, f := range done.Missing {
			p.say("not copied: %s", quotePath(f.Path))
		}
	}
	if n := done.Lacking; n > 0 {
		return failure(CodeFailed, "what they lack is on other devices", "%s cannot be read here in whole", plural(n, "file", "files"))
	}
	return nil
}

// refuseRescueInto refuses a folder that lies in a mount of ours, or is one.
func refuseRescueInto(dir string) error {
	list, err := mountPoints()
	if err != nil {
		return err
	}
	if m, ok := mountOf(list, resolve(dir)); ok && m.fstype == fsType {
		return failure(CodeFailed, "name a folder on a disk of this computer", "%s lies inside the roamfs mount %s", dir, m.dir)
	}
	return nil
}
