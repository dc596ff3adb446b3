package chunk_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/roamfs/roamfs/sync/block"
	"github.com/roamfs/roamfs/sync/chunk"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// checkGolden compares v with a golden file, or rewrites it.
func checkGolden(t *testing.T, file string, v any, consequence string) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("not what stands in %s: %s", file, consequence)
	}
}

func TestGoldenCuts(t *testing.T) {
	type cut struct {
		Cutter  uint8
		Name    string
		Content block.ID // its hash
		Size    int
		Lengths []int
	}
	var golden []cut
	for _, c := range cutters {
		for _, size := range []int{0, 50_000, 300_000, 700_000, 6_000_000, 12_000_000} {
			if c == chunk.Whole && size > chunk.MaxWhole || c >= chunk.Fixed64K && size > 1_000_000 {
				continue
			}
			content := random(42, size)
			golden = append(golden, cut{uint8(c), c.String(), block.Sum(content), size, lengths(cuts(t, c, content))})
		}
	}
	checkGolden(t, "testdata/cuts-v1.json", golden, "content would be cut elsewhere and all of it sent again")
}

func TestGoldenLists(t *testing.T) {
	type list struct {
		Name  string
		Depth uint8
		ID    block.ID // of list blocks that are not sealed: the hash of their content
		Root  string   // the content of the list block in hex, if it is short
	}
	var golden []list
	for _, c := range []struct {
		name string
		list chunk.List
	}{
		{"empty", nil},
		{"one piece", pieces(1)},
		{"one hole", chunk.List{hole(5e9)}},
		{"three pieces", pieces(3)},
		{"pieces and holes", chunk.List{hole(5e9), piece(0, 1), hole(63), piece(1, 64), hole(1 << 40), piece(2, block.MaxPlain)}},
		{"1024 pieces", pieces(1024)},
		{"1025 pieces", pieces(1025)},
		{"20,000 extents, every second a hole", alternating(20_000)},
		{"100,000 pieces", pieces(100_000)},
		{"9000 pieces, none ends a group", unending(9000)},
	} {
		s := store{}
		depth, id := s.build(t, c.list)
		l := list{Name: c.name, Depth: depth, ID: id}
		if root := s[id]; len(root) < 1000 {
			l.Root = hex.EncodeToString(root)
		}
		golden = append(golden, l)
	}
	checkGolden(t, "testdata/lists-v1.json", golden, "released lists could not be read, or have a second spelling")
}
