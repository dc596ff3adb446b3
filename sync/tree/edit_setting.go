package tree

// MinSetting is the least length of a setting's name, in bytes. From this on the
// keys of settings fill the 24 bytes of an inode, and their rows in a database, which
// end with a dot, sort as their keys do; a shorter one would be a record out of
// order in every walk of the tree.
const MinSetting = inoLen - len(settingPrefix)

// SetSetting writes the setting name of the hive; value is at most [MaxXattr]
// bytes and is not kept. Errors: [ErrName], [ErrTooBig].
func (e *Edit) SetSetting(name string, value []byte) error {
	switch {
	case len(name) < MinSetting || len(name) > MaxName:
		return ErrName
	case len(value) > MaxXattr:
		return ErrTooBig
	}
	return e.do(func() error {
		old, err := e.settings(name)
		if err != nil {
			return err
		}
		rank := uint64(1)
		for _, r := range old {
			s, err := DecodeSetting(r.Value)
			if err != nil {
				return err
			}
			rank = max(rank, min(s.Rank+1, MaxRank))
			e.drop(r)
		}
		e.put(SettingKey(name), Setting{Rank: rank, Wall: e.now, Value: value}.Encode())
		return nil
	})
}

// RemoveSetting removes the setting name of the hive, if there is one.
func (e *Edit) RemoveSetting(name string) error {
	return e.do(func() error {
		old, err := e.settings(name)
		for _, r := range old {
			e.drop(r)
		}
		return err
	})
}

// settings returns the records of a setting: several if devices wrote it at once.
func (e *Edit) settings(name string) (out []Record, err error) {
	k := SettingKey(name)
	all, err := e.v.s.Records(k.Ino())
	for _, r := range all {
		if r.Key == k {
			out = append(out, r)
		}
	}
	return out, err
}
