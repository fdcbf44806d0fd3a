package resp

// globMatch is Redis' pattern match, on bytes: '*', '?', "[abc]", "[^a-z]" and
// '\' before any of them. Ours, because the libraries we looked at know no
// classes and match runes, so a '?' or a binary key would mean something else
// than on Redis. On a mismatch only the last '*' is tried again, which is enough
// and keeps the cost to len(pattern) * len(s) whatever a client sends.
func globMatch(pattern, s []byte) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if n, ok := globOne(pattern[p:], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one byte against the front of pattern, which is no '*', and
// returns how much of the pattern that took.
func globOne(pattern []byte, c byte) (size int, ok bool) {
	if len(pattern) == 0 {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '\\':
		if len(pattern) > 1 {
			return 2, pattern[1] == c
		}
	case '[':
		return globClass(pattern, c)
	}
	return 1, pattern[0] == c
}

// globClass matches one byte against a class. Like in Redis a class that is
// never closed ends with the pattern, and the bounds of a range may come in
// either order.
func globClass(pattern []byte, c byte) (size int, ok bool) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for i < len(pattern) && pattern[i] != ']' {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			ok = ok || pattern[i+1] == c
			i += 2
		case i+2 < len(pattern) && pattern[i+1] == '-':
			lo, hi := min(pattern[i], pattern[i+2]), max(pattern[i], pattern[i+2])
			ok = ok || lo <= c && c <= hi
			i += 3
		default:
			ok = ok || pattern[i] == c
			i++
		}
	}
	return min(i+1, len(pattern)), ok != not
}
