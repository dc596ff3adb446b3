package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// readyFD is the descriptor on which a daemon in the background tells the
// command that started it that it answers, or why it does not. The hidden flag
// --ready-fd carries it.
const readyFD = 3

// startBackground runs this program again with args as a daemon of its own
// session and waits until it answers. Its error and exit code are the result.
func startBackground(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	defer discard(read)
	cmd := exec.Command(self, args...) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = withoutNotify(os.Environ())
	err = cmd.Start()
	discard(write)
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	// A person who interrupts the waiting does not want the daemon.
	interrupted := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer interrupted()
	answer, err := io.ReadAll(io.LimitReader(read, maxLine))
	if err == nil && len(bytes.TrimSpace(answer)) > 0 {
		var e apiError
		if err := json.Unmarshal(answer, &e); err != nil {
			return fmt.Errorf("start in the background: %w", err)
		}
		if e.Code == CodeOK {
			return cmd.Process.Release()
		}
		_ = cmd.Wait() // its error is known
		return e.err()
	}
	if ctx.Err() != nil {
		_ = cmd.Wait()
		return ctx.Err()
	}
	return fmt.Errorf("the device ended before it answered: %w", errors.Join(err, cmd.Wait()))
}

// withoutNotify removes the variable that would let the daemon speak to the
// service manager of the command that started it.
func withoutNotify(env []string) []string {
	var kept []string
	for _, v := range env {
		if !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// background is the daemon's side of startBackground.
type background struct {
	pipe *os.File // nil once answered
	log  *logFile
}

// enterBackground makes this process a daemon in the background: its log and
// what it prints go to the log of the state directory.
func enterBackground(fd int, s *State) (*background, error) {
	b := &background{pipe: os.NewFile(uintptr(fd), "ready")}
	syscall.CloseOnExec(fd)
	log, err := openLog(s.LogFile(), s.path(oldLogName), maxLog, true)
	if err != nil {
		return nil, err
	}
	b.log = log
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	defer discard(null)
	return b, syscall.Dup3(int(null.Fd()), 0, 0)
}

// answer tells the command that started the daemon how that went. Only the first
// answer counts.
func (b *background) answer(err error) {
	if b == nil || b.pipe == nil {
		return
	}
	a := &apiError{Schema: Schema}
	if err != nil {
		a = newAPIError(err)
	}
	_ = json.NewEncoder(b.pipe).Encode(a) // the command may have been killed
	discard(b.pipe)
	b.pipe = nil
}

// Close ends the log.
func (b *background) Close() error { return b.log.Close() }
