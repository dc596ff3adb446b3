package manifest

import "fmt"

// A ForkError is the proof that a device made two manifests that cannot belong to
// one history: its key is in use twice, its state was rolled back, or it lies.
// Anybody who has both can check them.
type ForkError struct {
	Older, Newer *Manifest
	Why          string
}

// Error says what contradicts what.
func (e *ForkError) Error() string {
	return fmt.Sprintf("history of %s forks between its manifests %d and %d: %s",
		e.Newer.Device.Short(), e.Older.Seq, e.Newer.Seq, e.Why)
}

// Conflict compares two manifests that were verified. If both are of one actor of
// one device and cannot belong to one history it returns a [*ForkError], else nil.
// In one history manifests have different numbers; a later one commits a later
// batch, has seen all that the earlier one had, follows it by hash when it is the
// next, and names the same manifest as the last commit if there is none between.
func Conflict(a, b *Manifest) error {
	if a.Hive != b.Hive || a.Device != b.Device || a.Actor != b.Actor || a.Hash() == b.Hash() {
		return nil
	}
	if a.Seq > b.Seq {
		a, b = b, a
	}
	fork := func(why string, args ...any) error {
		return &ForkError{Older: a, Newer: b, Why: fmt.Sprintf(why, args...)}
	}
	switch {
	case a.Seq == b.Seq:
		return fork("two manifests have one number")
	case a.Seq+1 == b.Seq && b.Prev != a.Hash():
		return fork("the later one follows another manifest")
	case b.Flags&FlagCommit != 0 && b.Ctr <= a.Ctr:
		return fork("commit %d comes after commit %d", b.Ctr, a.Ctr)
	case a.Ctr > 0 && differ(a.CommitHash(a.Ctr), b.CommitHash(a.Ctr)):
		return fork("the later one follows another commit %d", a.Ctr)
	case !b.Vector().Covers(a.Vector()):
		return fork("the later one has seen less")
	}
	return nil
}

// differ reports whether both hashes are known and not the same.
func differ(a, b Hash) bool { return !a.IsZero() && !b.IsZero() && a != b }
