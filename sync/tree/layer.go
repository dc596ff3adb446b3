package tree

// layer is a map that may stand on another one: reads fall through to the base,
// writes stay here. A view is one layer deep; an [Edit] that must see its own
// earlier steps puts a second layer on it and throws that away with itself.
type layer[K comparable, V any] struct {
	base *layer[K, V] // nil for the bottom; not written through this layer
	own  map[K]slot[V]
	n    int // entries of own and base together
}

type slot[V any] struct {
	v    V
	gone bool // deleted here, though the base may have it
}

func newLayer[K comparable, V any](base *layer[K, V]) *layer[K, V] {
	l := &layer[K, V]{base: base, own: map[K]slot[V]{}}
	if base != nil {
		l.n = base.n
	}
	return l
}

func (l *layer[K, V]) get(k K) (v V, ok bool) {
	for ; l != nil; l = l.base {
		if s, ok := l.own[k]; ok {
			return s.v, !s.gone
		}
	}
	return v, false
}

func (l *layer[K, V]) has(k K) bool {
	_, ok := l.get(k)
	return ok
}

func (l *layer[K, V]) set(k K, v V) {
	if !l.has(k) {
		l.n++
	}
	l.own[k] = slot[V]{v: v}
}

func (l *layer[K, V]) del(k K) {
	if !l.has(k) {
		return
	}
	l.n--
	if l.base == nil {
		delete(l.own, k)
		return
	}
	l.own[k] = slot[V]{gone: true}
}

func (l *layer[K, V]) len() int { return l.n }

// each calls fn for every entry in no order. fn must not add or delete.
func (l *layer[K, V]) each(fn func(K, V)) {
	if l.base != nil {
		l.base.each(func(k K, v V) {
			if _, ok := l.own[k]; !ok {
				fn(k, v)
			}
		})
	}
	for k, s := range l.own {
		if !s.gone {
			fn(k, s.v)
		}
	}
}
