package cim

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// unquote returns what a JSON string holds, its own bytes where nothing is escaped. An unpaired surrogate becomes U+FFFD,
// since UTF-8 cannot hold it.
func (v value) unquote() []byte {
	text := v[1 : len(v)-1]
	at := bytes.IndexByte(text, '\\')
	if at < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for at >= 0 {
		out = append(out, text[:at]...)
		text = text[at+1:]
		switch c := text[0]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hexRune(text[1:])
			if pair := utf16.DecodeRune(r, lowSurrogate(text[5:])); pair != utf8.RuneError {
				r = pair
				text = text[6:]
			}
			out = utf8.AppendRune(out, r)
			text = text[4:]
		default:
			out = append(out, c)
		}
		text = text[1:]
		at = bytes.IndexByte(text, '\\')
	}
	return append(out, text...)
}

// lowSurrogate reads the escape at the start of text, 0 if there is none.
func lowSurrogate(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	return hexRune(text[2:])
}

func hexRune(text []byte) rune {
	return hexDigit(text[0])<<12 | hexDigit(text[1])<<8 | hexDigit(text[2])<<4 | hexDigit(text[3])
}

// hexDigit is the value of a hexadecimal digit, -1 for any other byte.
func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// appendString appends text as a JSON string, bytes that are not UTF-8 as U+FFFD.
func appendString(dst []byte, text string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	plain := 0
	for plain < len(text) && text[plain] >= ' ' && text[plain] < utf8.RuneSelf && text[plain] != '"' && text[plain] != '\\' {
		plain++
	}
	dst = append(dst, text[:plain]...)
	text = text[plain:]
	for i, r := range text {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', digits[text[i]>>4], digits[text[i]&0xF])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// appendStringOrNull appends text as a JSON string, an empty one as null.
func appendStringOrNull(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, text)
}
