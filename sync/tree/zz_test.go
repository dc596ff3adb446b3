package tree

import (
	"flag"
	"strings"
	"testing"
)

var zzSeed = flag.Uint64("zz", 0, "")
var zzSnap = flag.Bool("zzsnap", false, "")

func TestZZ(t *testing.T) {
	off := rules{snap: *zzSnap}
	_, h, err := shrink(*zzSeed, off, stepsOf(*zzSeed))
	t.Fatalf("%s\n%v", strings.Join(h.log, "\n"), err)
}
