package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/roamfs/roamfs/sync/block"
)

// The exit codes of roam, which are also the codes in JSON errors and in the
// answers of the daemon. They are never renumbered; "roam help exit-codes"
// prints them.
const (
	CodeOK          = 0
	CodeFailed      = 1
	CodeUsage       = 2
	CodeNotFound    = 3
	CodeUnreachable = 4
	CodeRefused     = 5
	CodeDamaged     = 6
	CodeNotRunning  = 7
	CodeConflict    = 8
)

// Schema is the version of every JSON object that roam prints or sends. Fields
// are added without raising it; it is raised when one changes its meaning.
const Schema = 1

// Error is a failure with the exit code it leads to and, where one helps, a
// hint at what to do.
type Error struct {
	Code int
	Hint string // a sentence without its final stop, or empty
	Err  error  // never nil
}

// Error returns the text of the failure without the hint.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the failure that e gives a code.
func (e *Error) Unwrap() error { return e.Err }

// failure returns an Error with a formatted text, %w included.
func failure(code int, hint, format string, args ...any) *Error {
	return &Error{Code: code, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// usage returns the error of a command line that cannot be carried out as it
// was written.
func usage(format string, args ...any) *Error {
	return failure(CodeUsage, "", format, args...)
}

// ExitCode returns the code with which a process should end whose work ended
// with err: the code of an [Error] in its chain, else one chosen by the
// sentinels that the lower layers report, else 1. It is 0 for nil.
func ExitCode(err error) int {
	if err == nil {
		return CodeOK
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return CodeNotFound
	case errors.Is(err, block.ErrNoReplica), errors.Is(err, ErrExpired):
		return CodeUnreachable
	case errors.Is(err, block.ErrDamaged):
		return CodeDamaged
	}
	return CodeFailed
}

// hint returns the hint of the outermost [Error] in the chain of err.
func hint(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Hint
	}
	return ""
}

// apiError is an error as an object: on stderr with --json, and in the answers
// of the daemon.
type apiError struct {
	Schema int    `json:"schema"`
	Text   string `json:"error"`
	Hint   string `json:"hint,omitempty"`
	Code   int    `json:"code"`
}

func newAPIError(err error) *apiError {
	return &apiError{Schema: Schema, Text: message(err), Hint: hint(err), Code: ExitCode(err)}
}

// err turns the object back into the error it was made from.
func (a *apiError) err() error {
	code := a.Code
	if code <= CodeOK {
		code = CodeFailed
	}
	return &Error{Code: code, Hint: a.Hint, Err: errors.New(a.Text)}
}

// message returns the text of err for a person. An interrupted command says so
// instead of naming the context.
func message(err error) string {
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	return err.Error()
}

// discard closes what was only read, or what has failed already: the error of
// closing would say nothing more.
func discard(c io.Closer) { _ = c.Close() }

// report writes err to w: one line and perhaps a hint, or one JSON object.
func report(w io.Writer, err error, asJSON bool) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(newAPIError(err)) // nobody is left to tell
		return
	}
	fmt.Fprintf(w, "roam: %s\n", message(err))
	if h := hint(err); h != "" {
		fmt.Fprintf(w, "hint: %s\n", h)
	}
}
