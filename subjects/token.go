package subjects

import "strings"

// MaxToken is the longest encoded token, in bytes.
const MaxToken = 128

// none is the token of a channel or conversation that is not there. A name
// spelled "_" is written underscore instead, so that the two never meet.
const (
	none       = "_"
	underscore = "=5F"
)

const upperHex = "0123456789ABCDEF"

// Encode writes a name as a token: A-Z a-z 0-9 _ - stay, every other byte
// becomes =XX in upper-case hex, and the name "_" becomes "=5F". An empty name
// and one of more than MaxToken bytes encoded are refused with an *Error. A
// name that needs no encoding is returned as it is.
func Encode(name string) (string, error) {
	if name != "" && name != none && len(name) <= MaxToken && isPlain(name) {
		return name, nil
	}
	var space [MaxToken]byte
	token, problem := appendToken(space[:0], name, false)
	if problem != "" {
		return "", &Error{Field: "name", Name: name, Problem: problem}
	}
	return string(token), nil
}

// Decode reads a token back into its name. Only what Encode writes is accepted;
// all else, "_" included, is refused with an *Error.
func Decode(token string) (string, error) {
	name, problem := decode(token)
	if problem != "" {
		return "", &Error{Field: "token", Name: token, Problem: problem}
	}
	return name, nil
}

// appendToken appends name to dst as a token, folded to ASCII lower case if
// lower is set. A problem is "" or the Error's text.
func appendToken(dst []byte, name string, lower bool) (token []byte, problem string) {
	switch {
	case name == "":
		return dst, "is empty; " + validName
	case name == none:
		return append(dst, underscore...), ""
	case len(name) > MaxToken:
		return dst, "is too long; " + validName
	case !lower && isPlain(name):
		return append(dst, name...), ""
	}
	start := len(dst)
	for i := range len(name) {
		c := name[i]
		switch {
		case !plain(c):
			dst = append(dst, '=', upperHex[c>>4], upperHex[c&15])
		case lower && isUpper(c):
			dst = append(dst, c|0x20)
		default:
			dst = append(dst, c)
		}
	}
	if len(dst)-start > MaxToken {
		return dst[:start], "is too long; " + validName
	}
	return dst, ""
}

// decode is Decode with the bare problem. Tokens without "=" are not copied.
func decode(token string) (name, problem string) {
	switch {
	case token == "":
		return "", "is empty; " + validToken
	case token == none:
		return "", "stands for none, and something is needed here; " + validToken
	case token == underscore:
		return none, ""
	case len(token) > MaxToken:
		return "", "is too long; " + validToken
	case isPlain(token):
		return token, ""
	}
	var space [MaxToken]byte
	out := space[:0]
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c == '=' {
			if i+2 >= len(token) {
				return "", "ends within an =XX; " + validToken
			}
			high, low := strings.IndexByte(upperHex, token[i+1]), strings.IndexByte(upperHex, token[i+2])
			if high < 0 || low < 0 {
				return "", "has an = without two upper-case hex digits after it; " + validToken
			}
			c = byte(high<<4 | low)
			if plain(c) {
				return "", "encodes a byte that is written as it is; " + validToken
			}
			i += 2
		} else if !plain(c) {
			return "", "holds a byte that must be encoded; " + validToken
		}
		out = append(out, c)
	}
	return string(out), ""
}

// isPlain reports whether every byte of s stands for itself in a token.
func isPlain(s string) bool {
	for i := range len(s) {
		if !plain(s[i]) {
			return false
		}
	}
	return true
}

// plain reports whether c stands for itself: A-Z a-z 0-9 _ -. It is a bitmap of
// the 128 ASCII characters; a shift by 64 or more, for any other byte, gives 0.
func plain(c byte) bool {
	const mask = (1<<26-1)<<'A' | (1<<26-1)<<'a' | (1<<10-1)<<'0' | 1<<'_' | 1<<'-'
	return (uint64(1)<<c)&(mask&(1<<64-1))|(uint64(1)<<(c-64))&(mask>>64) != 0
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// hasUpper reports whether s holds an ASCII capital.
func hasUpper(s string) bool {
	for i := range len(s) {
		if isUpper(s[i]) {
			return true
		}
	}
	return false
}
