package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) mountCommand() *cobra.Command {
	var r runner
	c := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show the files at DIR",
		Long: `Run the device and show the files of the hive at DIR, until the mount is ended
with "roam unmount" or this program with a signal such as Ctrl-C. DIR is made if
it is missing, and must be empty. If the device runs already without a mount
("roam serve"), it adds the mount, and this command returns.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := mountDir(args[0])
			if err != nil {
				return r.report(err)
			}
			return r.report(p.mount(cmd.Context(), &r, dir))
		},
	}
	r.flags(c)
	return c
}

// runner are the flags of the verbs that run the device, and the daemon's side
// of the start in the background.
type runner struct {
	wantBackground bool
	readyFD        int // 0: not the daemon of a start in the background
	back           *background
}

func (r *runner) flags(c *cobra.Command) {
	c.Flags().BoolVar(&r.wantBackground, "background", false, "return as soon as it answers, and let it run on")
	c.Flags().IntVar(&r.readyFD, "ready-fd", 0, "")
	_ = c.Flags().MarkHidden("ready-fd") // it exists
}

// report tells a waiting start in the background about an error and returns it.
func (r *runner) report(err error) error {
	if err != nil && r.readyFD > 0 && r.back == nil {
		r.back = &background{pipe: os.NewFile(uintptr(r.readyFD), "ready")}
	}
	if err != nil {
		r.back.answer(err)
	}
	return err
}

func (p *program) mount(ctx context.Context, r *runner, dir string) error {
	state, err := p.stateDir()
	if err != nil {
		return err
	}
	s, err := openState(state)
	if held, ok := errors.AsType[*heldError](err); ok {
		return p.mountInRunning(ctx, state, dir, held, err)
	}
	if err != nil {
		return err
	}
	if r.wantBackground {
		// The daemon takes the lock itself, and so refuses a rival that came
		// between.
		if err := errors.Join(prepareMountPoint(state, dir), s.Close()); err != nil {
			return err
		}
		if err := startBackground(ctx, p.daemonArgs("mount", state, "--", dir)); err != nil {
			return err
		}
		return p.showMounted(Mounted{Dir: dir, PID: lockHolder(state)})
	}
	return p.runHere(ctx, r, s, dir)
}

// mountInRunning adds a mount to the device that runs already. One that has a
// mount is left alone: a second mount of one device is rarely what is meant.
func (p *program) mountInRunning(ctx context.Context, state, dir string, held *heldError, refusal error) error {
	c := newClient(state)
	defer c.close()
	st, err := c.status(ctx)
	switch {
	case ExitCode(err) == CodeNotRunning:
		return refusal // it is about to start or to end, or it is no daemon
	case err != nil:
		return err
	case slices.Contains(st.Mounts, dir):
		return failure(CodeFailed, "", "the files are shown at %s already, by process %d", dir, held.pid)
	case len(st.Mounts) > 0:
		return failure(CodeFailed, "end that one with `roam unmount`, or make another device with --state DIR",
			"%w, which shows the files at %s", held, st.Mounts[0])
	}
	m, err := c.mount(ctx, dir)
	if err != nil {
		return err
	}
	return p.showMounted(m)
}

func (p *program) showMounted(m Mounted) error {
	if p.json {
		return p.print(&m)
	}
	p.say("The files are at %s.", m.Dir)
	return nil
}

// daemonArgs returns the command line of a daemon in the background.
func (p *program) daemonArgs(verb, state string, rest ...string) []string {
	args := []string{verb, "--state", state, fmt.Sprintf("--ready-fd=%d", readyFD)}
	if p.verbose {
		args = append(args, "--verbose")
	}
	return append(args, rest...)
}

// runHere runs the device of s in this process, with a mount unless dir is
// empty, and closes s.
func (p *program) runHere(ctx context.Context, r *runner, s *State, dir string) (err error) {
	defer func() { err = errors.Join(err, s.Close()) }()
	log := p.logger(p.err)
	if r.readyFD > 0 {
		if r.back, err = enterBackground(r.readyFD, s); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.back.Close()) }()
		log = p.logger(r.back.log)
	}
	// The modes of the files of the hive are what programs ask for: the umask is
	// that of the asking program, which the kernel applies.
	syscall.Umask(0)
	return runDaemon(ctx, p.engine, s, log, task{
		mount: dir,
		ready: func() {
			status := "running"
			if dir != "" {
				status = "files at " + dir
			}
			notify("READY=1\nSTATUS=" + status)
			r.back.answer(nil)
			if r.readyFD == 0 {
				p.showRunning(dir)
			}
		},
		ended: func(o OnlyHere) {
			if r.readyFD == 0 {
				p.showOnlyHere(o)
			}
		},
	})
}

func (p *program) showRunning(dir string) {
	switch {
	case p.json && dir != "":
		_ = p.print(&Mounted{Dir: dir, PID: os.Getpid()}) // for who waits; the daemon runs on without
	case dir != "":
		p.say("The files are at %s. Ctrl-C or `roam unmount %s` ends it.", dir, dir)
	default:
		p.say("The device is running. Ctrl-C or `roam stop` ends it.")
	}
}

// showOnlyHere says what would be lost with this device.
func (p *program) showOnlyHere(o OnlyHere) {
	if o.Files == 0 {
		return
	}
	p.say("%s only here:", existsText(o.Amount))
	for _, path := range o.Paths {
		p.say("  %s", quotePath(path))
	}
	if more := o.Files - int64(len(o.Paths)); more > 0 && len(o.Paths) > 0 {
		p.say("  and %d more", more)
	}
}

// stopTime bounds the wait for the end of a daemon that has said it ends.
const stopTime = time.Minute
