package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/zeebo/blake3"
)

// A Kind says what a [Record] states.
type Kind uint8

const (
	// KindGenesis begins a hive: the owner admits a device, with nothing before it.
	KindGenesis Kind = 1
	// KindAdd admits a device, or a further incarnation of one that is a member.
	KindAdd Kind = 2
	// KindRevoke shuts a device out for good.
	KindRevoke Kind = 3
	// KindRole gives a member another role.
	KindRole Kind = 4
	// KindRename gives a member another label.
	KindRename Kind = 5
	// KindEpoch hands the secret of an epoch to members, sealed for each.
	KindEpoch Kind = 6
)

// String returns the word of the format description.
func (k Kind) String() string {
	switch k {
	case KindGenesis:
		return "genesis"
	case KindAdd:
		return "add"
	case KindRevoke:
		return "revoke"
	case KindRole:
		return "role"
	case KindRename:
		return "rename"
	case KindEpoch:
		return "epoch"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// A Class says why a device was revoked.
type Class uint8

const (
	// ClassRetired means given up by its owner's will; what it wrote is trusted.
	ClassRetired Class = 1
	// ClassLost means gone, in unknown hands.
	ClassLost Class = 2
	// ClassCompromised means used by someone else.
	ClassCompromised Class = 3
)

// String returns the word of the format description.
func (c Class) String() string {
	switch c {
	case ClassRetired:
		return "retired"
	case ClassLost:
		return "lost"
	case ClassCompromised:
		return "compromised"
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// ErrClass reports a class that does not exist.
var ErrClass = errors.New("no such reason for a revocation")

// ParseClass reads what [Class.String] writes. Any other text gives [ErrClass].
func ParseClass(s string) (Class, error) {
	for c := ClassRetired; c <= ClassCompromised; c++ {
		if s == c.String() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrClass, s)
}

// A Cutoff is the last commit of a revoked device's incarnation that still counts.
type Cutoff struct {
	Actor [8]byte
	Ctr   uint64
	Hash  [32]byte // of that commit's manifest
}

// Bounds of the format.
const (
	maxParents = 64
	maxCutoffs = 64
	maxShares  = 128
	maxWall    = 1 << 53 // ms
	sigLen     = 64
	// MaxRecord is the length of the longest encoded record, in bytes.
	MaxRecord = recordHead + 32*maxParents + 4 + 32 + 1 + shareLen*maxShares + sigLen
	// recordHead counts version, kind, hive, signer, wall and the parent count.
	recordHead = 1 + 1 + 32 + 32 + 8 + 1
)

const (
	recordVersion = 1
	recordDomain  = "roamfs membership record v1\x00"
)

var (
	// ErrRecord reports bytes that are not a record in its one spelling.
	ErrRecord = errors.New("malformed membership record")
	// ErrSignature reports a record that its signer did not sign.
	ErrSignature = errors.New("membership record has a wrong signature")
)

// A Record is one signed statement about the members of a hive. Which fields have
// a meaning depends on Kind, as the package comment says; the others are zero.
// Records that come from this package are shared and must not be changed.
type Record struct {
	Kind    Kind
	Hive    HiveID
	Signer  ID     // a device, or the owner
	Wall    int64  // signer's clock, milliseconds since 1970
	Parents []Hash // ascending
	Device  ID     // of whom it speaks; zero in an epoch

	Label   string   // genesis, add, rename
	Role    Role     // genesis, add, role
	Actor   [8]byte  // genesis, add
	Class   Class    // revoke
	Cutoffs []Cutoff // revoke; ascending by actor
	Epoch   uint32   // epoch; at least 2
	Secret  SecretID // epoch; of its secret
	Shares  []Share  // epoch; ascending by device

	Sig [64]byte
}

// Time returns the signer's clock when it signed.
func (r *Record) Time() time.Time { return time.UnixMilli(r.Wall).UTC() }

// Encode returns the record's bytes. They can be decoded only if the record is
// well formed.
func (r *Record) Encode() []byte { return append(r.body(), r.Sig[:]...) }

// Hash returns the name of the record.
func (r *Record) Hash() Hash { return blake3.Sum256(r.Encode()) }

// body returns the encoding without the signature.
func (r *Record) body() []byte {
	b := make([]byte, 0, 256+32*len(r.Parents)+48*len(r.Cutoffs)+shareLen*len(r.Shares))
	b = append(b, recordVersion, byte(r.Kind))
	b = append(b, r.Hive[:]...)
	b = append(b, r.Signer[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Wall))
	b = append(b, byte(len(r.Parents)))
	for _, p := range r.Parents {
		b = append(b, p[:]...)
	}
	if r.Kind == KindEpoch {
		return appendEpoch(b, r)
	}
	b = append(b, r.Device[:]...)
	switch r.Kind {
	case KindGenesis, KindAdd:
		b = append(b, byte(r.Role))
		b = append(b, r.Actor[:]...)
		b = appendLabel(b, r.Label)
	case KindRevoke:
		b = append(b, byte(r.Class), byte(len(r.Cutoffs)))
		for _, c := range r.Cutoffs {
			b = append(b, c.Actor[:]...)
			b = binary.BigEndian.AppendUint64(b, c.Ctr)
			b = append(b, c.Hash[:]...)
		}
	case KindRole:
		b = append(b, byte(r.Role))
	case KindRename:
		b = appendLabel(b, r.Label)
	case KindEpoch: // above
	}
	return b
}

func appendLabel(b []byte, s string) []byte {
	return append(append(b, byte(len(s))), s...)
}

// sign fills Signer and Sig.
func (r *Record) sign(by Key) {
	r.Signer = by.ID()
	r.Sig = [64]byte(by.Sign(append([]byte(recordDomain), r.body()...)))
}

// verify checks the signature.
func (r *Record) verify() error {
	if !r.Signer.Verify(append([]byte(recordDomain), r.body()...), r.Sig[:]) {
		return fmt.Errorf("%w: %v of %s by %s", ErrSignature, r.Kind, r.Device.Short(), r.Signer.Short())
	}
	return nil
}

// check returns an error that wraps [ErrRecord] unless the record is well formed
// in itself: what can be said of it without its past and its signature.
func (r *Record) check() error {
	bad := func(what string) error {
		return fmt.Errorf("%w: %v with %s", ErrRecord, r.Kind, what)
	}
	if r.Wall < 0 || r.Wall > maxWall {
		return bad("a time out of range")
	}
	if len(r.Parents) > maxParents || (r.Kind == KindGenesis) != (len(r.Parents) == 0) {
		return bad(fmt.Sprintf("%d parents", len(r.Parents)))
	}
	for i := 1; i < len(r.Parents); i++ {
		if r.Parents[i-1].Compare(r.Parents[i]) >= 0 {
			return bad("parents out of order")
		}
	}
	if r.Kind == KindGenesis && HiveOf(r.Signer) != r.Hive {
		return bad("a signer who does not own the hive")
	}
	if r.Kind == KindEpoch {
		return r.checkEpoch()
	}
	if r.Device.IsZero() {
		return bad("no device")
	}
	switch r.Kind {
	case KindGenesis, KindAdd:
		if r.Actor == ([8]byte{}) {
			return bad("no actor")
		}
		return errors.Join(wrap(CheckLabel(r.Label)), r.checkRole())
	case KindRevoke:
		if r.Class < ClassRetired || r.Class > ClassCompromised {
			return bad("an unknown class")
		}
		if len(r.Cutoffs) > maxCutoffs {
			return bad("too many cutoffs")
		}
		for i := 1; i < len(r.Cutoffs); i++ {
			if string(r.Cutoffs[i-1].Actor[:]) >= string(r.Cutoffs[i].Actor[:]) {
				return bad("cutoffs out of order")
			}
		}
	case KindRole:
		return r.checkRole()
	case KindRename:
		return wrap(CheckLabel(r.Label))
	default:
		return fmt.Errorf("%w: unknown kind %d", ErrRecord, uint8(r.Kind))
	}
	return nil
}

func (r *Record) checkRole() error {
	if !r.Role.valid() {
		return fmt.Errorf("%w: %w: %d", ErrRecord, ErrRole, uint8(r.Role))
	}
	return nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrRecord, err)
}

// DecodeRecord reads one record, which must fill b. It checks the form, not the
// signature and not the authority. The result does not share memory with b.
func DecodeRecord(b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("%w: %d bytes", ErrRecord, len(b))
	}
	d := decoder{b: b}
	if v := d.byte(); v != recordVersion && !d.short {
		return Record{}, fmt.Errorf("%w: version %d", ErrRecord, v)
	}
	r := Record{Kind: Kind(d.byte())}
	d.into(r.Hive[:])
	d.into(r.Signer[:])
	r.Wall = int64(d.uint64())
	if n := int(d.byte()); n > 0 && n <= maxParents && d.has(32*n) {
		r.Parents = make([]Hash, n)
		for i := range r.Parents {
			d.into(r.Parents[i][:])
		}
	} else if n > 0 {
		return Record{}, fmt.Errorf("%w: %d parents", ErrRecord, n)
	}
	if r.Kind != KindEpoch {
		d.into(r.Device[:])
	}
	switch r.Kind {
	case KindGenesis, KindAdd:
		r.Role = Role(d.byte())
		d.into(r.Actor[:])
		r.Label = d.label()
	case KindRevoke:
		r.Class = Class(d.byte())
		if n := int(d.byte()); n > 0 && n <= maxCutoffs && d.has(48*n) {
			r.Cutoffs = make([]Cutoff, n)
			for i := range r.Cutoffs {
				d.into(r.Cutoffs[i].Actor[:])
				r.Cutoffs[i].Ctr = d.uint64()
				d.into(r.Cutoffs[i].Hash[:])
			}
		} else if n > 0 {
			return Record{}, fmt.Errorf("%w: %d cutoffs", ErrRecord, n)
		}
	case KindRole:
		r.Role = Role(d.byte())
	case KindRename:
		r.Label = d.label()
	case KindEpoch:
		if err := d.epoch(&r); err != nil {
			return Record{}, err
		}
	}
	d.into(r.Sig[:])
	if d.short || len(d.b) != 0 {
		return Record{}, fmt.Errorf("%w: wrong length", ErrRecord)
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

// A decoder takes fields off the front of b. Past the end it yields zeros and
// remembers that b was too short.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) has(n int) bool { return len(d.b) >= n }

func (d *decoder) take(n int) []byte {
	if !d.has(n) {
		d.b, d.short = nil, true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) into(p []byte) { copy(p, d.take(len(p))) }

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) label() string { return string(d.take(int(d.byte()))) }

// uvarint reads a number in its shortest spelling.
func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.b, d.short = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}
