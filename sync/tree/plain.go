package tree

import "strings"

// PlainName undoes what made name for a conflict copy: it returns the name that
// the copy lost, which may be cut short if it was long, the part in parentheses
// without "conflict" and the suffix. It reports false for any other name.
func PlainName(name string) (plain, origin, ext string, ok bool) {
	i := strings.LastIndex(name, mark)
	if i < 0 {
		return "", "", "", false
	}
	origin, ext, ok = strings.Cut(name[i+len(mark):], ")")
	if !ok || i == 0 || origin == "" || ext != "" && ext[0] != '.' {
		return "", "", "", false
	}
	return name[:i] + ext, origin, ext, true
}
