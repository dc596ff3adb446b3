package block_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"github.com/roamfs/roamfs/sync/block"
)

var update = flag.Bool("update", false, "rewrite the golden files of the current version")

// goldenSecret is the secret of each epoch in the golden files.
func goldenSecret(epoch uint32) block.Secret {
	return block.Secret(block.Sum(fmt.Appendf(nil, "golden secret %d", epoch)))
}

func goldenKeys(tb testing.TB, current uint32) *block.Keys {
	tb.Helper()
	keys, err := block.NewKeys(current, map[uint32]block.Secret{7: goldenSecret(7), 1 << 20: goldenSecret(1 << 20)})
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// vector is one sealed block.
type vector struct {
	Name   string
	Epoch  uint32
	Type   block.Type
	Plain  string // hex, or how to make it if it is long
	ID     block.ID
	Sealed string // hex; empty for long blocks, of which the ID says everything
}

func (v vector) plain(tb testing.TB) []byte {
	tb.Helper()
	switch v.Plain {
	case "text 1 10000":
		return text(1, 10000)
	case "random 1 100000":
		return random(1, 100_000)
	case "text 2 100000":
		return text(2, 100_000)
	case "zeros 4194304":
		return make([]byte, 4<<20)
	}
	b, err := hex.DecodeString(v.Plain)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// golden is the file of one version of the format.
type golden struct {
	ChunkKey string // of the golden secrets
	Vectors  []vector
}

func newGolden(t *testing.T) golden {
	t.Helper()
	key := goldenKeys(t, 7).ChunkKey()
	g := golden{ChunkKey: hex.EncodeToString(key[:])}
	for _, v := range []vector{
		{Name: "empty", Epoch: 7, Type: block.Data},
		{Name: "short", Epoch: 7, Type: block.Data, Plain: hex.EncodeToString([]byte("hello, hive"))},
		{Name: "short list", Epoch: 7, Type: block.List, Plain: hex.EncodeToString([]byte("hello, hive"))},
		{Name: "short node", Epoch: 7, Type: block.Node, Plain: hex.EncodeToString([]byte("hello, hive"))},
		{Name: "later epoch", Epoch: 1 << 20, Type: block.Data, Plain: hex.EncodeToString([]byte("hello, hive"))},
		{Name: "padded", Epoch: 7, Type: block.Data, Plain: hex.EncodeToString(random(1, 33))},
		{Name: "compressed", Epoch: 7, Type: block.Data, Plain: hex.EncodeToString(bytes.Repeat([]byte("roam "), 40))},
		{Name: "text", Epoch: 7, Type: block.Data, Plain: "text 1 10000"},
		{Name: "probed random", Epoch: 7, Type: block.Data, Plain: "random 1 100000"},
		{Name: "probed text", Epoch: 7, Type: block.Data, Plain: "text 2 100000"},
		{Name: "zeros", Epoch: 7, Type: block.Data, Plain: "zeros 4194304"},
	} {
		id, sealed := seal(t, goldenKeys(t, v.Epoch), v.Type, v.plain(t))
		v.ID = id
		if len(sealed) < 10_000 {
			v.Sealed = hex.EncodeToString(sealed)
		}
		g.Vectors = append(g.Vectors, v)
	}
	return g
}

// currentGolden is the file that Seal must reproduce to the byte.
const currentGolden = "testdata/sealed-v1.json"

func TestGoldenSeal(t *testing.T) {
	got, err := json.MarshalIndent(newGolden(t), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(currentGolden, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(currentGolden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("sealed blocks are no longer those of %s: every hive would store all content again", currentGolden)
	}
}

// Every block that a release wrote can be opened, also by a reader that was
// written from the package comment alone.
func TestGoldenOpen(t *testing.T) {
	files, err := filepath.Glob("testdata/sealed-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		for _, v := range readGolden(t, file) {
			t.Run(filepath.Base(file)+"/"+v.Name, func(t *testing.T) {
				sealed, err := hex.DecodeString(v.Sealed)
				if err != nil {
					t.Fatal(err)
				}
				if v.Sealed == "" {
					_, sealed = seal(t, goldenKeys(t, v.Epoch), v.Type, v.plain(t))
				}
				plain, err := goldenKeys(t, 7).Open(v.ID, v.Type, sealed)
				if err != nil || !bytes.Equal(plain, v.plain(t)) {
					t.Errorf("opened %d bytes, error %v", len(plain), err)
				}
				plain, err = openBySpecification(goldenSecret(v.Epoch), v.ID, v.Type, sealed)
				if err != nil || !bytes.Equal(plain, v.plain(t)) {
					t.Errorf("by the specification: %d bytes, error %v", len(plain), err)
				}
			})
		}
	}
}

func readGolden(tb testing.TB, file string) []vector {
	tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		tb.Fatal(err)
	}
	return g.Vectors
}

// openBySpecification follows the package comment, line by line.
func openBySpecification(secret block.Secret, id block.ID, typ block.Type, sealed []byte) ([]byte, error) {
	derive := func(info string) []byte {
		key, err := hkdf.Key(sha256.New, secret[:], nil, info, 32)
		if err != nil {
			panic(err)
		}
		return key
	}
	keyed := func(key []byte, parts ...[]byte) []byte {
		h, err := blake3.NewKeyed(key)
		if err != nil {
			panic(err)
		}
		_, _ = h.Write(slices.Concat(parts...))
		return h.Sum(nil)
	}
	if block.ID(blake3.Sum256(sealed)) != id || sealed[0] != 1 || sealed[1] != byte(typ) {
		return nil, errors.New("ID, version or type")
	}
	tag := sealed[6:38]
	c, err := aes.NewCipher(keyed(derive("roamfs block enc v1"), tag))
	if err != nil {
		return nil, err
	}
	opened := make([]byte, len(sealed)-38)
	cipher.NewCTR(c, make([]byte, 16)).XORKeyStream(opened, sealed[38:])
	if !bytes.Equal(tag, keyed(derive("roamfs block siv v1"), sealed[:6], make([]byte, 32), opened)) {
		return nil, errors.New("tag")
	}
	n := int(binary.BigEndian.Uint32(opened[5:]))
	if len(opened) != 9+padme(n) || strings.Trim(string(opened[9+n:]), "\x00") != "" {
		return nil, errors.New("padding")
	}
	plain := opened[9 : 9+n]
	if opened[0] == 1 {
		d, err := zstd.NewReader(nil)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		if plain, err = d.DecodeAll(plain, nil); err != nil {
			return nil, err
		}
	}
	if len(plain) != int(binary.BigEndian.Uint32(opened[1:])) {
		return nil, errors.New("length")
	}
	return plain, nil
}

func FuzzOpen(f *testing.F) {
	for _, v := range readGolden(f, currentGolden) {
		if v.Sealed != "" {
			sealed, err := hex.DecodeString(v.Sealed)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(sealed, byte(v.Type))
		}
	}
	f.Add([]byte{}, byte(0))
	keys := goldenKeys(f, 7)
	f.Fuzz(func(t *testing.T, sealed []byte, typ byte) {
		kept := slices.Clone(sealed)
		plain, err := keys.Open(block.Sum(sealed), block.Type(typ), sealed)
		if !bytes.Equal(sealed, kept) {
			t.Fatal("Open changed its argument")
		}
		if err != nil {
			if !errors.Is(err, block.ErrDamaged) && !errors.Is(err, block.ErrNoKey) && !errors.Is(err, block.ErrVersion) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		// Nobody can make a block without the secret, so this is one of the
		// seeds.
		current := goldenKeys(t, binary.BigEndian.Uint32(sealed[2:]))
		if id, _ := seal(t, current, block.Type(typ), plain); id != block.Sum(sealed) {
			t.Fatalf("opened a block that Seal did not write: %x", sealed)
		}
	})
}
