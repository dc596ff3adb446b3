package app

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// How often progress is shown: on a terminal, and as plain lines.
const (
	redrawTime = 100 * time.Millisecond
	lineTime   = 5 * time.Second
)

// meter shows the progress of long work: one line that is redrawn on a terminal,
// else a line every few seconds. It is safe for concurrent use.
type meter struct {
	p        *program
	asJSON   bool
	terminal bool

	mu    sync.Mutex
	last  Progress
	began time.Time // of the stage
	shown time.Time
	drawn bool // a line stands on the terminal that is not ended
}

// newMeter returns a meter that writes to stderr or, as JSON objects, to stdout.
func (p *program) newMeter(asJSON bool) *meter {
	return &meter{p: p, asJSON: asJSON, terminal: isTerminal(p.err)}
}

// update takes how far the work is.
func (m *meter) update(now Progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := time.Now()
	stage := now.Stage != m.last.Stage
	if stage {
		m.began, m.shown = t, time.Time{}
	}
	m.last = now
	pause := lineTime
	if m.terminal {
		pause = redrawTime
	}
	if t.Sub(m.shown) < pause {
		return
	}
	m.shown = t
	switch {
	case m.asJSON:
		_ = m.p.print(&progressObject{Schema: Schema, Progress: now}) // the result will tell
	case m.p.json:
	case m.terminal:
		if stage && m.drawn {
			fmt.Fprintln(m.p.err)
		}
		fmt.Fprintf(m.p.err, "\r\x1b[K%s", now.text(t.Sub(m.began)))
		m.drawn = true
	default:
		fmt.Fprintln(m.p.err, now.text(t.Sub(m.began)))
	}
}

// close ends the line.
func (m *meter) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drawn {
		fmt.Fprintln(m.p.err)
		m.drawn = false
	}
}

// progressObject is a line that --json-progress prints.
type progressObject struct {
	Schema   int      `json:"schema"`
	Progress Progress `json:"progress"`
}

// text returns a line for a person after the stage has taken d: what is done, the
// rate, the time left.
func (g Progress) text(d time.Duration) string {
	line := g.Stage
	if g.Done == 0 && g.Total == 0 {
		return line
	}
	line += ": " + humanSize(g.Done)
	if g.Total > 0 {
		line += " of " + humanSize(g.Total)
	}
	if d < time.Second || g.Done == 0 {
		return line
	}
	rate := float64(g.Done) / d.Seconds()
	line += ", " + humanSize(int64(rate)) + "/s"
	if g.Total > g.Done {
		left := time.Duration(float64(g.Total-g.Done) / rate * float64(time.Second))
		line += ", " + left.Round(time.Second).String() + " left"
	}
	return line
}

// isTerminal tells whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
