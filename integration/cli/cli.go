// Package cli drives roam devices through their command line, as scripts and
// people do: the tests of whole devices, the benchmark and the demo all need it.
// It knows of roam only what its command line promises.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Device is one device: a state directory, with a mount when it runs. Its
// methods are safe for concurrent use while nobody changes its fields.
type Device struct {
	Program string // path of roam
	Name    string
	State   string // state directory, made by Init or Join
	Mount   string // directory of the mount
	Netns   string // network namespace that it runs in; "" for that of the caller
}

// New returns a device that has its state directory and its mount in dir, and
// makes the directory of the mount.
func New(program, dir, name string) (*Device, error) {
	d := &Device{Program: program, Name: name, State: filepath.Join(dir, name+".state"), Mount: filepath.Join(dir, name)}
	return d, os.Mkdir(d.Mount, 0o755)
}

// Command returns a command line of roam on the device, which ends with ctx.
func (d *Device) Command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"--state", d.State}, args...)
	if d.Netns == "" {
		return exec.CommandContext(ctx, d.Program, args...)
	}
	// Not "ip netns exec", which would hide the mounts.
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + d.Netns, d.Program}, args...)...)
}

// ExitError says that roam ended with an exit code other than 0.
type ExitError struct {
	Device string
	Args   []string
	Code   int
	Talk   string // what it wrote to stderr
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("roam %s on %s: exit code %d\n%s", strings.Join(e.Args, " "), e.Device, e.Code, e.Talk)
}

// runTime bounds one command line: none that is used here takes longer.
const runTime = 2 * time.Minute

// Run runs roam on the device and returns what it prints. The error is an
// [*ExitError] if it could be run.
func (d *Device) Run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	cmd := d.Command(ctx, args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return out.String(), &ExitError{Device: d.Name, Args: args, Code: exit.ExitCode(), Talk: talk.String()}
	}
	if err != nil {
		return out.String(), fmt.Errorf("roam %s on %s: %w\n%s", strings.Join(args, " "), d.Name, err, talk.String())
	}
	return out.String(), nil
}

// Init makes the device the first of a new hive.
func (d *Device) Init(ctx context.Context, args ...string) error {
	_, err := d.Run(ctx, append([]string{"init", "--name", d.Name}, args...)...)
	return err
}

// Start runs the device with its mount, in the background.
func (d *Device) Start(ctx context.Context) error {
	_, err := d.Run(ctx, "mount", d.Mount, "--background")
	return err
}

// notRunning is the exit code of roam for a device that does not run.
const notRunning = 7

// Stop ends the device. One that does not run is no error.
func (d *Device) Stop(ctx context.Context) error {
	_, err := d.Run(ctx, "stop")
	if exit, ok := errors.AsType[*ExitError](err); ok && exit.Code == notRunning {
		return nil
	}
	return err
}
