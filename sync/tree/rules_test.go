package tree

import (
	"strings"
	"testing"
)

// leftOut is what a history does without, to prove that it is needed.
type leftOut struct {
	rules
	incarnation bool // a device that is restored gets a new actor
}

// TestRulesAreNeeded leaves out one rule after the other and demands that some
// history then breaks an invariant. Those that need a rarer one have tests with
// histories of their own (garbage_test.go).
func TestRulesAreNeeded(t *testing.T) {
	for name, c := range map[string]struct {
		off  leftOut
		from uint64 // a seed that was found to fail; if that changes, later ones are tried
	}{
		"touch":         {leftOut{rules: rules{touch: true}}, 6},
		"snap":          {leftOut{rules: rules{snap: true}}, 58},
		"keep alive":    {leftOut{rules: rules{keepAlive: true}}, 3957},
		"skeleton":      {leftOut{rules: rules{skeleton: true}}, 19},
		"base dot":      {leftOut{rules: rules{baseDot: true}}, 79},
		"pin names":     {leftOut{rules: rules{pinNames: true}}, 44},
		"pin copies":    {leftOut{rules: rules{pinCopies: true}}, 79},
		"pin ghosts":    {leftOut{rules: rules{pinGhosts: true}}, 54},
		"pin displaced": {leftOut{rules: rules{pinDisplaced: true}}, 45},
		"incarnation":   {leftOut{incarnation: true}, 62},
		"anchor":        {leftOut{rules: rules{anchor: true}}, 10721},
		"every word":    {leftOut{rules: rules{everyWord: true}}, 72},
		"have words":    {leftOut{rules: rules{haveWords: true}}, 3145},
	} {
		t.Run(name, func(t *testing.T) {
			const enough = 30000
			for seed := c.from; seed < c.from+enough; seed++ {
				h := newHistory(seed, c.off)
				h.check = false
				// An invariant has to break: that an operation fails is not enough.
				if err := h.run(stepsOf(seed)); err != nil && strings.HasPrefix(err.Error(), "I") {
					t.Logf("history-seed %d: %v", seed, err)
					return
				}
			}
			t.Errorf("%d histories hold without this rule", enough)
		})
	}
}
