package tree

import "bytes"

// JoinKey joins what two states hold of one key. local and remote are their
// records of that key in dot order, vl and vr their whole vectors. It returns
// the changes that turn local into the join: a record survives if both have it,
// or if the side without it has not seen its dot; one that a side has seen and
// no longer holds was superseded there. If the two sides hold different bytes
// for one dot, which no honest actor causes, the greater bytes win and alarm is
// set.
//
// Applied to every key, with the pointwise maximum of the vectors, this is the
// only merge: commutative, associative and idempotent for any input.
func JoinKey(local, remote []Record, vl, vr Vector) (put []Record, drop []KeyDot, alarm bool) {
	for len(local) > 0 || len(remote) > 0 {
		c := 0
		switch {
		case len(local) == 0:
			c = 1
		case len(remote) == 0:
			c = -1
		default:
			c = compareRecords(local[0], remote[0])
		}
		switch {
		case c < 0:
			if l := local[0]; vr.Has(l.Dot) {
				drop = append(drop, l.ID())
			}
			local = local[1:]
		case c > 0:
			if r := remote[0]; !vl.Has(r.Dot) {
				put = append(put, r)
			}
			remote = remote[1:]
		default:
			if d := bytes.Compare(local[0].Value, remote[0].Value); d != 0 {
				alarm = true
				if d < 0 {
					put = append(put, remote[0])
				}
			}
			local, remote = local[1:], remote[1:]
		}
	}
	return put, drop, alarm
}

// Join joins two whole states, both in [KeyDot.Compare] order, into a new one.
// alarm is as in [JoinKey], which does the work.
func Join(a, b []Record, va, vb Vector) (joined []Record, v Vector, alarm bool) {
	put, drop, alarm := JoinKey(a, b, va, vb)
	v = va.Clone()
	v.Merge(vb)
	return patch(a, put, drop), v, alarm
}

// patch applies put and drop, both sorted, to the sorted rs, giving a new slice.
func patch(rs, put []Record, drop []KeyDot) []Record {
	out := make([]Record, 0, len(rs)+len(put))
	for len(rs) > 0 || len(put) > 0 {
		c := 0
		switch {
		case len(rs) == 0:
			c = 1
		case len(put) == 0:
			c = -1
		default:
			c = compareRecords(rs[0], put[0])
		}
		if c >= 0 {
			out = append(out, put[0])
			put = put[1:]
			if c == 0 {
				rs = rs[1:]
			}
			continue
		}
		for len(drop) > 0 && drop[0].Compare(rs[0].ID()) < 0 {
			drop = drop[1:]
		}
		if len(drop) == 0 || drop[0] != rs[0].ID() {
			out = append(out, rs[0])
		}
		rs = rs[1:]
	}
	return out
}
