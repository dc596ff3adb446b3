package device

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

var (
	// ErrKeyFile reports a key file that is damaged or is none.
	ErrKeyFile = errors.New("not a device key file")
	// ErrKeyMode reports a key file that others than its owner may read or write.
	ErrKeyMode = errors.New("key file is open to others")
)

// A Key is the private key of a device or of a hive's owner. It is immutable and
// safe for concurrent use. It prints as its public half, so that it does not end
// up in a log. The zero Key is not usable.
type Key struct {
	priv ed25519.PrivateKey
}

// Generate makes a new random key.
func Generate() (Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make key: %w", err)
	}
	return Key{priv: priv}, nil
}

// KeyFromSeed returns the key that the 32-byte ed25519 seed stands for.
func KeyFromSeed(seed [32]byte) Key {
	return Key{priv: ed25519.NewKeyFromSeed(seed[:])}
}

// ID returns the name of the device that holds the key.
func (k Key) ID() ID {
	if k.IsZero() {
		return ID{}
	}
	return ID(k.priv[32:])
}

// IsZero reports whether k is the zero Key.
func (k Key) IsZero() bool { return len(k.priv) != ed25519.PrivateKeySize }

// Sign returns the signature over msg. Callers put a domain of their own in front
// of what they sign, so that no signature means two things.
func (k Key) Sign(msg []byte) []byte { return ed25519.Sign(k.priv, msg) }

// Private returns the key for libraries that take it in this form. The caller
// must not change it.
func (k Key) Private() ed25519.PrivateKey { return k.priv }

// Seed returns the 32 bytes from which [KeyFromSeed] makes the key again.
func (k Key) Seed() [32]byte { return [32]byte(k.priv.Seed()) }

// String returns the public half, marked as a key.
func (k Key) String() string { return "key of " + k.ID().Short() }

// GoString is String.
func (k Key) GoString() string { return k.String() }

const (
	keyFileMagic = "roamfs-device-key-1"
	keyFileLen   = len(keyFileMagic) + 1 + 64 + 1 + idTextLen + 1
)

// Load reads a key that [Key.Save] wrote. It gives [ErrKeyMode] if the file's mode
// lets anyone but its owner in, and [ErrKeyFile] if the content is not a key.
func Load(path string) (k Key, err error) {
	f, err := os.Open(path)
	if err != nil {
		return Key{}, fmt.Errorf("open device key: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("open device key: %w", err)
	}
	if !st.Mode().IsRegular() {
		return Key{}, fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("%w: %s has mode %04o, want 0600", ErrKeyMode, path, st.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, int64(keyFileLen)+1))
	if err != nil {
		return Key{}, fmt.Errorf("read device key: %w", err)
	}
	if k, err = parseKeyFile(b); err != nil {
		return Key{}, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// keyFile is one line: magic, seed in hexadecimal, and the ID, by which a damaged
// seed is noticed.
func keyFile(k Key) []byte {
	seed := k.Seed()
	return fmt.Appendf(nil, "%s %s %s\n", keyFileMagic, hex.EncodeToString(seed[:]), k.ID())
}

func parseKeyFile(b []byte) (Key, error) {
	f := bytes.Fields(b)
	if len(b) != keyFileLen || len(f) != 3 || string(f[0]) != keyFileMagic || len(f[1]) != 64 {
		return Key{}, ErrKeyFile
	}
	var seed [32]byte
	if _, err := hex.Decode(seed[:], f[1]); err != nil {
		return Key{}, ErrKeyFile
	}
	k := KeyFromSeed(seed)
	if !bytes.Equal(keyFile(k), b) {
		return Key{}, ErrKeyFile
	}
	return k, nil
}

// Save writes the key to a new file of mode 0600 and returns when it is durable.
// It never replaces a file: one that exists gives [fs.ErrExist], since a lost key
// is a lost device. After a crash there is the whole file or none.
func (k Key) Save(path string) (err error) {
	if k.IsZero() {
		return fmt.Errorf("save device key: %w", ErrKeyFile)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save device key: %w", err)
	}
	defer func() {
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}()
	_, err = f.Write(keyFile(k))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save device key: %w", err)
	}
	// A link, unlike a rename, refuses to replace.
	if err := os.Link(f.Name(), path); err != nil {
		return fmt.Errorf("save device key: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
