package block_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/roamfs/roamfs/sync/block"
)

func TestParseID(t *testing.T) {
	const good = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"as printed", good, true},
		{"zero", strings.Repeat("0", 64), true},
		{"empty", "", false},
		{"one short", good[1:], false},
		{"one long", good + "0", false},
		{"upper case", strings.ToUpper(good), false},
		{"not hexadecimal", "g" + good[1:], false},
		{"of 64 bytes but fewer characters", good[:62] + "é", false},
		{"a space in front", " " + good[1:], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := block.ParseID(c.text)
			if (err == nil) != c.ok {
				t.Fatalf("ParseID(%q) = %v, want success %v", c.text, err, c.ok)
			}
			if c.ok && id.String() != c.text {
				t.Errorf("ParseID(%q).String() = %q", c.text, id)
			}
			if !c.ok && !id.IsZero() {
				t.Errorf("ParseID(%q) = %v besides the error", c.text, id)
			}
		})
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(block.Sum(nil).String())
	f.Add("")
	f.Add(strings.Repeat("F", 64))
	f.Fuzz(func(t *testing.T, s string) {
		id, err := block.ParseID(s)
		if err == nil && id.String() != s {
			t.Errorf("%q is a second spelling of %v", s, id)
		}
	})
}

func TestIDOrder(t *testing.T) {
	ids := rapid.SliceOf(rapid.Custom(drawID))
	rapid.Check(t, func(t *rapid.T) {
		got := ids.Draw(t, "ids")
		text := make([]string, len(got))
		for i, id := range got {
			text[i] = id.String()
		}
		slices.SortFunc(got, block.ID.Compare)
		slices.Sort(text)
		for i, id := range got {
			if id.String() != text[i] {
				t.Fatalf("order of IDs and of their text differ at %d: %v, %v", i, id, text[i])
			}
			if i > 0 && got[i-1].Less(id) != (cmp.Compare(text[i-1], text[i]) < 0) {
				t.Fatalf("%v.Less(%v) = %v", got[i-1], id, got[i-1].Less(id))
			}
		}
	})
}

func drawID(t *rapid.T) block.ID {
	// Few different bytes, so that IDs share prefixes and are equal at times.
	return block.ID(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 32, 32).Draw(t, "id"))
}

func TestIDInJSON(t *testing.T) {
	want := map[block.ID]block.ID{block.Sum([]byte("a")): block.Sum([]byte("b"))}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got map[block.ID]block.ID
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[block.Sum([]byte("a"))] != block.Sum([]byte("b")) {
		t.Errorf("%s read back as %v", text, got)
	}
	id := block.Sum([]byte("kept"))
	if err := id.UnmarshalText([]byte("short")); err == nil || id != block.Sum([]byte("kept")) {
		t.Errorf("UnmarshalText of a short text: error %v, ID %v", err, id)
	}
}

func TestVerify(t *testing.T) {
	sealed := []byte("whatever was sealed")
	id := block.Sum(sealed)
	if err := block.Verify(id, sealed); err != nil {
		t.Errorf("Verify of the right bytes: %v", err)
	}
	for i := range sealed {
		bad := slices.Clone(sealed)
		bad[i] ^= 1
		wantMismatch(t, block.Verify(id, bad), id, block.Sum(bad))
	}
	wantMismatch(t, block.Verify(id, sealed[:len(sealed)-1]), id, block.Sum(sealed[:len(sealed)-1]))
}
