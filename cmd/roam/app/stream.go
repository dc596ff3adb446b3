package app

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"
)

// maxLine bounds one line of an answer of the daemon, in bytes.
const maxLine = 4 << 20

// envelope is one line of an answer with many objects. Exactly one field is set.
type envelope struct {
	Item  json.RawMessage `json:"item,omitempty"`
	Error *apiError       `json:"error,omitempty"`
	End   bool            `json:"end,omitempty"`
}

// stream writes an answer with many objects. It is not safe for concurrent use.
type stream struct {
	w   http.ResponseWriter
	enc *json.Encoder
	now *http.ResponseController // pushes each line at once; nil: as buffers fill
}

// newStream begins an answer. A live one sends each object at once.
func newStream(w http.ResponseWriter, live bool) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	s := &stream{w: w, enc: json.NewEncoder(w)}
	if live {
		s.now = http.NewResponseController(w)
	}
	return s
}

// send writes one object.
func (s *stream) send(v any) error {
	pack(v)
	item, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.line(envelope{Item: item})
}

// end finishes the answer: with err, or as complete.
func (s *stream) end(err error) {
	e := envelope{End: true}
	if err != nil {
		e = envelope{Error: newAPIError(err)}
	}
	_ = s.line(e) // the client notices an answer that does not end
}

func (s *stream) line(e envelope) error {
	if err := s.enc.Encode(e); err != nil {
		return err
	}
	if s.now != nil {
		return s.now.Flush()
	}
	return nil
}

// readStream reads an answer with many objects of type T and calls fn for each.
// An answer that breaks off is an error.
func readStream[T any](r io.Reader, fn func(T) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e envelope
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("answer of the device: %w", err)
		}
		switch {
		case e.End:
			return nil
		case e.Error != nil:
			return e.Error.err()
		case e.Item == nil:
			return errors.New("answer of the device: empty line")
		}
		var item T
		if err := json.Unmarshal(e.Item, &item); err != nil {
			return fmt.Errorf("answer of the device: %w", err)
		}
		unpack(&item)
		if err := fn(item); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("answer of the device: %w", err)
	}
	return fmt.Errorf("answer of the device: %w", io.ErrUnexpectedEOF)
}

// pather is an object with paths. JSON strings are Unicode and names are bytes,
// so a path that is not valid UTF-8 is sent as bytes beside the readable form.
type pather interface {
	// eachPath calls fn with each path and the place for its bytes.
	eachPath(fn func(path *string, raw *[]byte))
}

// pack prepares v for JSON. It sets the schema as well.
func pack(v any) {
	if s, ok := v.(interface{ stamp() }); ok {
		s.stamp()
	}
	if p, ok := v.(pather); ok {
		p.eachPath(func(path *string, raw *[]byte) {
			*raw = nil
			if !utf8.ValidString(*path) {
				*raw = []byte(*path)
			}
		})
	}
}

// unpack restores what pack replaced, after decoding.
func unpack(v any) {
	if p, ok := v.(pather); ok {
		p.eachPath(func(path *string, raw *[]byte) {
			if *raw != nil {
				*path = string(*raw)
			}
		})
	}
}

func (e *Entry) eachPath(fn func(*string, *[]byte))   { fn(&e.Path, &e.Path64) }
func (w *Whereis) eachPath(fn func(*string, *[]byte)) { fn(&w.Path, &w.Path64) }
func (r *Rescued) eachPath(fn func(*string, *[]byte)) {
	for i := range r.Missing {
		fn(&r.Missing[i].Path, &r.Missing[i].Path64)
	}
}

func (u *Unavailable) eachPath(fn func(*string, *[]byte)) { fn(&u.Path, &u.Path64) }

func (c *Conflict) eachPath(fn func(*string, *[]byte)) {
	fn(&c.Path, &c.Path64)
	for i := range c.Versions {
		fn(&c.Versions[i].Path, &c.Versions[i].Path64)
	}
}

func (r *Resolved) eachPath(fn func(*string, *[]byte)) {
	for _, list := range [][]Path{r.Kept, r.Removed} {
		for i := range list {
			fn(&list[i].Path, &list[i].Path64)
		}
	}
}

func (s *Status) eachPath(fn func(*string, *[]byte)) {
	for i := range s.Unavailable {
		s.Unavailable[i].eachPath(fn)
	}
	for i := range s.Pending {
		s.Pending[i].eachPath(fn)
	}
}

func (p *Pending) eachPath(fn func(*string, *[]byte)) {
	for i := range p.Paths {
		fn(&p.Paths[i].Path, &p.Paths[i].Path64)
	}
}

func (e *Ended) eachPath(fn func(*string, *[]byte)) {
	for i := range e.Paths {
		fn(&e.Paths[i].Path, &e.Paths[i].Path64)
	}
}

// stamp completes an object: its schema, empty lists in place of null, and times
// in UTC.
func (s *Status) stamp() {
	s.Schema = Schema
	s.Mounts, s.Peers = list(s.Mounts), list(s.Peers)
	s.UnsafeBecause, s.Unavailable, s.Addresses = list(s.UnsafeBecause), list(s.Unavailable), list(s.Addresses)
	for i := range s.Unavailable {
		u := &s.Unavailable[i]
		u.Holders, u.At = list(u.Holders), u.At.UTC()
	}
	s.Pending = list(s.Pending)
	for i := range s.Pending {
		s.Pending[i].stamp()
		s.Pending[i].Schema = 0 // the status has one
	}
	for i := range s.Peers {
		s.Peers[i].LastSeen = utc(s.Peers[i].LastSeen)
	}
}

func (p *Pending) stamp() { p.Schema, p.Paths, p.Since = Schema, list(p.Paths), p.Since.UTC() }

func (r *Rescued) stamp() { r.Schema, r.Missing = Schema, list(r.Missing) }
func (d *Decided) stamp() { d.Schema, d.Devices = Schema, list(d.Devices) }

func (m *Member) stamp() {
	m.Schema = Schema
	m.Added, m.LastSeen = m.Added.UTC(), utc(m.LastSeen)
}

func (e *Entry) stamp() {
	e.Schema = Schema
	e.MTime = e.MTime.UTC()
}

func (c *Conflict) stamp() {
	c.Schema, c.Versions = Schema, list(c.Versions)
	for i := range c.Versions {
		c.Versions[i].MTime = c.Versions[i].MTime.UTC()
	}
}

func (r *Resolved) stamp() { r.Schema, r.Kept, r.Removed = Schema, list(r.Kept), list(r.Removed) }

func (r *Revoked) stamp() { r.Schema = Schema }

func (w *Whereis) stamp() {
	w.Schema, w.Holders = Schema, list(w.Holders)
	for i := range w.Holders {
		w.Holders[i].AsOf = utc(w.Holders[i].AsOf)
	}
}

func (e *InviteEvent) stamp() {
	e.Schema = Schema
	e.Expires = utc(e.Expires)
}

func (m *Mounted) stamp() { m.Schema = Schema }

func (e *Ended) stamp() {
	e.Schema, e.Paths, e.Detached = Schema, list(e.Paths), list(e.Detached)
}

// utc returns t in UTC, the zone of all times in JSON.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// list returns l, or an empty list for nil, so that JSON has [] and not null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// listAll writes what ask gets from the daemon: JSON, one object per line, or each
// object as write does for people, and none if there is nothing.
func listAll[T any](p *program, ask func(func(T) error) error, write func(io.Writer, T) error, none string) error {
	if p.json {
		return ask(func(x T) error { return p.print(&x) })
	}
	out := bufio.NewWriter(p.out)
	empty := true
	if err := ask(func(x T) error {
		empty = false
		return write(out, x)
	}); err != nil {
		return err
	}
	if empty {
		fmt.Fprintln(out, none)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
