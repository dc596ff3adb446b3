package app

import (
	"context"
	"fmt"

	"github.com/roamfs/roamfs/fs/mount"

	"github.com/spf13/cobra"
)

func (p *program) unmountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unmount DIR",
		Aliases: []string{"umount"},
		Short:   "End the mount at DIR",
		Long: `Make everything durable, say what exists only here, and end the mount at DIR. A
device that was started by "roam mount" ends with its mount.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := mountDir(args[0])
			if err != nil {
				return err
			}
			return p.unmount(cmd.Context(), dir)
		},
	}
}

func (p *program) unmount(ctx context.Context, dir string) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	c := newClient(state)
	defer c.close()
	e, err := c.unmount(ctx, dir)
	if code := ExitCode(err); code == CodeNotRunning || code == CodeNotFound {
		if cleared, clearErr := clearDeadMount(dir); cleared || clearErr != nil {
			p.say("The device behind %s was dead.", dir)
			return clearErr
		}
	}
	if err != nil {
		return err
	}
	return p.ended(ctx, c, e)
}

// clearDeadMount takes away a mount of ours whose device was killed.
func clearDeadMount(dir string) (bool, error) {
	list, err := mountPoints()
	if err != nil {
		return false, err
	}
	m, ok := mountOf(list, dir)
	if !ok || m.dir != dir || m.fstype != fsType || !mount.Stale(dir) {
		return false, nil
	}
	if err := mount.CleanStale(dir); err != nil {
		return false, fmt.Errorf("unmount %s: %w", dir, err)
	}
	return true, nil
}

// ended waits for a daemon that ends and prints what it left behind.
func (p *program) ended(ctx context.Context, c *client, e Ended) error {
	if e.Stopping {
		ctx, cancel := context.WithTimeout(ctx, stopTime)
		defer cancel()
		if err := c.waitReleased(ctx, e.PID); err != nil {
			return err
		}
	}
	if p.json {
		return p.print(&e)
	}
	for _, dir := range e.Detached {
		p.say("%s was in use: programs that have files open there get errors now.", dir)
	}
	only := OnlyHere{Amount: e.OnlyHere}
	for _, path := range e.Paths {
		only.Paths = append(only.Paths, path.Path)
	}
	p.showOnlyHere(only)
	return nil
}
