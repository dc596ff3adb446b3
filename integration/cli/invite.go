package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Invite is an invite that is open.
type Invite struct {
	Code string

	by   *Device
	cmd  *exec.Cmd
	out  io.Reader
	talk bytes.Buffer
}

// Invite opens an invite on the device, which runs. It is open until it was
// given to [Device.Accept], or ctx ends.
func (d *Device) Invite(ctx context.Context) (*Invite, error) {
	i := &Invite{by: d, cmd: d.Command(ctx, "invite", "--json")}
	i.cmd.Stderr = &i.talk
	out, err := i.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := i.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	i.out = lines
	first, err := lines.ReadBytes('\n')
	if err == nil {
		var event struct{ Code string }
		err = json.Unmarshal(first, &event)
		i.Code = event.Code
	}
	if err != nil {
		return nil, errors.Join(err, i.cancel())
	}
	return i, nil
}

// wait waits until the invite has ended: nil if a device has joined.
func (i *Invite) wait() error {
	_, _ = io.Copy(io.Discard, i.out) // until it ends
	if err := i.cmd.Wait(); err != nil {
		return fmt.Errorf("roam invite on %s: %w\n%s", i.by.Name, err, i.talk.String())
	}
	return nil
}

// cancel ends the invite and returns what it had to say.
func (i *Invite) cancel() error {
	_ = i.cmd.Process.Kill() // it may have ended
	return i.wait()
}

// Accept makes the device a member of the hive that has invited it, and returns
// when both sides say so.
func (d *Device) Accept(ctx context.Context, i *Invite, args ...string) error {
	if _, err := d.Run(ctx, append([]string{"join", i.Code, "--name", d.Name}, args...)...); err != nil {
		return errors.Join(err, i.cancel())
	}
	return i.wait()
}

// Join makes the device a member of the hive of by, which runs.
func (d *Device) Join(ctx context.Context, by *Device, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	i, err := by.Invite(ctx)
	if err != nil {
		return err
	}
	return d.Accept(ctx, i, args...)
}
