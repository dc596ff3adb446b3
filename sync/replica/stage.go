package replica

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"github.com/roamfs/roamfs/sync/merkle"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// stage is the file in which the leaves of another device's tree are kept until
// all that is needed is here. A leaf is known by its hash, whoever sent it, so
// what one walk brought serves the next one.
//
// The file has the records of the leaves, one after the other. When a state is
// going to be joined its plan follows, for an Open after a crash in the middle
// of it, and the value joiningKey of the database says where the plan begins:
//
//	begin  4+n   length, and the state message without its kind
//	count  4     number of regions, in order
//	region 97*n  from group 24, to group 24, 1 if there is no end else 0,
//	             hash of the leaf 32, where its records begin 8, their length 8
//	check  32    SHA-256 of the plan before it
//
// A region without a leaf has a hash of zeros: the other device has nothing there.
type stage struct {
	file   *os.File
	w      *bufio.Writer // of what comes behind size
	size   int64         // bytes of whole leaves
	leaves map[merkle.Hash]extent
}

// extent is where the records of a leaf are in the file.
type extent struct{ off, n int64 }

// A region is groups in which the tree of another device is, or may be, another
// one than the own: all that falls to one leaf of it, or to none.
type region struct {
	from, to [24]byte
	open     bool        // no end; to is zero
	leaf     merkle.Hash // zero if there is nothing
	extent
}

// bounds returns the range of keys.
func (g *region) bounds() (from, to []byte) {
	if !g.open {
		to = merkle.Bound(g.to)
	}
	return merkle.Bound(g.from), to
}

const regionLen = 97

// newStage makes an empty file, instead of what is there.
func newStage(path string) (*stage, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("stage state: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stage state: %w", err)
	}
	return &stage{file: f, w: bufio.NewWriterSize(f, 256<<10), leaves: map[merkle.Hash]extent{}}, nil
}

// rewind drops what is behind the last whole leaf.
func (s *stage) rewind() error {
	if err := s.w.Flush(); err != nil { // whole leaves, and what is behind them
		return fmt.Errorf("stage state: %w", err)
	}
	if err := s.file.Truncate(s.size); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	if _, err := s.file.Seek(s.size, io.SeekStart); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	return nil
}

// write appends records of the leaf that is being received.
func (s *stage) write(records []byte) error {
	if _, err := s.w.Write(records); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	return nil
}

// keep says that what was written, n bytes, is the leaf with that hash.
func (s *stage) keep(leaf merkle.Hash, n int64) extent {
	e := extent{s.size, n}
	s.leaves[leaf] = e
	s.size += n
	return e
}

// close ends the use of the file; the name is kept if it is still needed.
func (s *stage) close(keep bool) {
	_ = s.file.Close() // what counts was synced
	if !keep {
		_ = os.Remove(s.file.Name()) // a left-over is removed by the next
	}
}

// seal appends the plan and makes all of it durable.
func (s *stage) seal(in *incoming) error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	sum := sha256.New()
	bw := bufio.NewWriterSize(io.MultiWriter(s.file, sum), 64<<10)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(in.begin)))
	b = append(b, in.begin...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(in.regions)))
	_, err := bw.Write(b)
	for i := range in.regions {
		if err == nil {
			_, err = bw.Write(appendRegion(b[:0], &in.regions[i]))
		}
	}
	if err == nil {
		err = bw.Flush()
	}
	if err == nil {
		_, err = s.file.Write(sum.Sum(nil))
	}
	if err == nil {
		err = s.file.Sync()
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.file.Name()))
	}
	if err != nil {
		return fmt.Errorf("stage state: %w", err)
	}
	in.plan = s.size
	return nil
}

func appendRegion(b []byte, g *region) []byte {
	b = append(append(b, g.from[:]...), g.to[:]...)
	if g.open {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = append(b, g.leaf[:]...)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, uint64(g.off)), uint64(g.n))
}

// readPlan returns what a plan says.
func readPlan(b []byte) (begin []byte, regions []region, err error) {
	bad := fmt.Errorf("%w: plan in the staging file", store.ErrDamaged)
	if len(b) < 4+4+sha256.Size {
		return nil, nil, bad
	}
	b, check := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sum := sha256.Sum256(b); !bytes.Equal(sum[:], check) {
		return nil, nil, bad
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n)+4 > uint64(len(b)) {
		return nil, nil, bad
	}
	begin, b = b[:n], b[n:]
	n, b = binary.BigEndian.Uint32(b), b[4:]
	if n > maxRegions || uint64(n)*regionLen != uint64(len(b)) {
		return nil, nil, bad
	}
	regions = make([]region, n)
	for i := range regions {
		g := &regions[i]
		g.from, g.to, g.open, g.leaf = [24]byte(b), [24]byte(b[24:]), b[48] == 1, merkle.Hash(b[49:])
		g.off, g.n = int64(binary.BigEndian.Uint64(b[81:])), int64(binary.BigEndian.Uint64(b[89:]))
		if b[48] > 1 || g.off < 0 || g.n < 0 {
			return nil, nil, bad
		}
		b = b[regionLen:]
	}
	return begin, regions, nil
}

// readWindow is how many bytes of a leaf are read at once.
const readWindow = 256 << 10

// maxRecord is the length of an encoded record, at most.
const maxRecord = tree.MaxKey + tree.MaxValue + 64

// read calls fn with the records of a leaf. What fn gets stays as it is.
func (s *stage) read(e extent, fn func(tree.Record) error) error {
	if s.w != nil && s.w.Buffered() > 0 {
		if err := s.w.Flush(); err != nil {
			return fmt.Errorf("stage state: %w", err)
		}
	}
	var rest []byte
	for e.n > 0 {
		buf := make([]byte, len(rest)+int(min(e.n, readWindow)))
		n := copy(buf, rest)
		if _, err := s.file.ReadAt(buf[n:], e.off); err != nil {
			return fmt.Errorf("staging file: %w", err)
		}
		e.off, e.n = e.off+int64(len(buf)-n), e.n-int64(len(buf)-n)
		for rest = buf; len(rest) >= maxRecord || e.n == 0 && len(rest) > 0; {
			rec, tail, err := tree.DecodeRecord(rest)
			if err != nil {
				return fmt.Errorf("staging file: %w", err)
			}
			rest = tail
			if err := fn(rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls fn with all records of a state that are staged, in key order.
func (in *incoming) each(fn func(tree.Record) error) error {
	for i := range in.regions {
		if err := in.stage.read(in.regions[i].extent, fn); err != nil {
			return err
		}
	}
	return nil
}

// local calls fn with the records of a snapshot in the same regions, in key order.
func (in *incoming) local(snap *store.Snapshot, fn func(tree.Record) error) error {
	for i := 0; i < len(in.regions); {
		from, to := in.regions[i].bounds()
		for i++; to != nil && i < len(in.regions) && in.regions[i].from == in.regions[i-1].to; i++ {
			_, to = in.regions[i].bounds() // in one go
		}
		if err := snap.Scan(from, to, fn); err != nil {
			return err
		}
	}
	return nil
}

// blend is the state of the other device, as a [merkle.Source]: what is staged in
// the regions, and elsewhere what is here.
type blend struct {
	in   *incoming
	snap *store.Snapshot
}

// Scan implements [merkle.Source].
func (b blend) Scan(from, to []byte, fn func(merkle.Entry) error) error {
	here := func(from, to []byte) error {
		if to != nil && bytes.Compare(from, to) >= 0 {
			return nil
		}
		return source{b.snap}.Scan(from, to, fn)
	}
	regions := b.in.regions
	i := sort.Search(len(regions), func(i int) bool {
		_, end := regions[i].bounds()
		return end == nil || bytes.Compare(end, from) > 0
	})
	for ; i < len(regions); i++ {
		start, end := regions[i].bounds()
		if to != nil && bytes.Compare(start, to) >= 0 {
			break
		}
		if err := here(from, start); err != nil {
			return err
		}
		if err := b.in.stage.read(regions[i].extent, func(rec tree.Record) error {
			if k := string(rec.Key); k < string(from) || to != nil && k >= string(to) {
				return nil
			}
			return fn(entryOf(rec))
		}); err != nil {
			return err
		}
		if end == nil {
			return nil
		}
		if bytes.Compare(end, from) > 0 {
			from = end
		}
	}
	return here(from, to)
}

// tidy sorts the regions and makes one of those without a leaf that follow one
// another.
func (in *incoming) tidy() {
	slices.SortFunc(in.regions, func(a, b region) int { return bytes.Compare(a.from[:], b.from[:]) })
	out := in.regions[:0]
	for _, g := range in.regions {
		if n := len(out); n > 0 && g.leaf.IsZero() && out[n-1].leaf.IsZero() && !out[n-1].open && out[n-1].to == g.from {
			out[n-1].to, out[n-1].open = g.to, g.open
			continue
		}
		out = append(out, g)
	}
	in.regions = out
}
