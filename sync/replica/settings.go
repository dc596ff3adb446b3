package replica

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/roamfs/roamfs/sync/manifest"
	"github.com/roamfs/roamfs/sync/store"
	"github.com/roamfs/roamfs/sync/tree"
)

// Setting is one setting of the hive.
type Setting struct {
	Name  string
	Value []byte
	Dot   tree.Dot // the commit that it came with
}

// Settings returns the settings of the hive whose names begin with prefix, sorted
// by name. Of one that several devices wrote at once it is that of the highest rank,
// then of the latest time, then of the greatest dot, the same on every device.
func (r *Replica) Settings(prefix string) ([]Setting, error) {
	from := []byte(tree.SettingKey(prefix))
	snap := r.st.Snapshot()
	defer snap.Release()
	var out []Setting
	var best tree.Setting
	err := snap.Scan(from, after(from), func(rec tree.Record) error {
		s, err := tree.DecodeSetting(rec.Value)
		if err != nil {
			return fmt.Errorf("%w: setting: %w", store.ErrDamaged, err)
		}
		x := Setting{rec.Key.Sub(), bytes.Clone(s.Value), rec.Dot}
		n := len(out)
		if n == 0 || out[n-1].Name != x.Name {
			out, best = append(out, x), s
			return nil
		}
		if s.Rank > best.Rank || s.Rank == best.Rank && (s.Wall > best.Wall || s.Wall == best.Wall && x.Dot.Compare(out[n-1].Dot) > 0) {
			out[n-1], best = x, s
		}
		return nil
	})
	return out, err
}

// after returns the first key behind all that begin with prefix, which is not
// all 0xff.
func after(prefix []byte) []byte {
	b := bytes.Clone(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return nil
}

// PutSetting writes a setting of the hive; name has at least [tree.MinSetting] bytes.
func (r *Replica) PutSetting(name string, value []byte) error {
	err := r.edit(func(e *tree.Edit) error { return e.SetSetting(name, value) })
	if err == nil {
		r.tellSettings()
	}
	return err
}

// RemoveSettings removes settings of the hive.
func (r *Replica) RemoveSettings(names ...string) error {
	err := r.edit(func(e *tree.Edit) error {
		for _, name := range names {
			if err := e.RemoveSetting(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		r.tellSettings()
	}
	return err
}

// SubscribeSettings registers fn to be told that settings may have changed, here
// or by another device. It is called without locks held.
func (r *Replica) SubscribeSettings(fn func()) {
	r.subMu.Lock()
	defer r.subMu.Unlock()
	r.setting = append(r.setting, fn)
}

func (r *Replica) tellSettings() {
	r.subMu.Lock()
	fns := r.setting
	r.subMu.Unlock()
	for _, fn := range fns {
		fn()
	}
}

// aboutSettings reports whether a delta changes any setting.
func aboutSettings(d manifest.Delta) bool {
	return slices.ContainsFunc(d.Put, func(rec tree.Record) bool { return rec.Key.IsSetting() }) ||
		slices.ContainsFunc(d.Drop, func(kd tree.KeyDot) bool { return kd.Key.IsSetting() })
}
