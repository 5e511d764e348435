package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// maxTextLength is the most characters of any text in a file.
const maxTextLength = 1000

// decode sets v from a node and notes what does not fit. It goes by the tokens and not by the library's values: the
// library reads 010 as 8, takes 1.5 for the whole number 1, and stops at the first problem.
func (d *document) decode(n ast.Node, v reflect.Value, path string) {
	switch n := n.(type) {
	case nil:
		d.report(path, "has no value", "write one, or remove the key")
		return
	case *ast.NullNode:
		d.report(path, "has no value", "write one, or remove the key")
		return
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.report(path, "anchors, aliases and tags are not used here", "write the value itself")
		return
	case *ast.NanNode, *ast.InfinityNode:
		d.report(path, "is not a number to work with", "write a finite number")
		return
	case *ast.MappingNode:
		if isMapping(v) {
			d.decodeStruct(n, v, path)
			return
		}
	case *ast.SequenceNode:
		if v.Kind() == reflect.Slice {
			d.decodeSlice(n, v, path)
			return
		}
	case ast.ScalarNode:
		if d.decodeScalar(n, v, path) {
			return
		}
	}
	what, mend := wanted(v)
	if _, kind := scalar(n); kind == other && !isMapping(v) && v.Kind() != reflect.Slice {
		mend = "write a single value"
	}
	d.report(path, "is "+describe(n)+" and should be "+what, mend)
}

// isMapping says whether a mapping in the file is what v takes.
func isMapping(v reflect.Value) bool {
	return v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[Decimal]() && v.Type() != reflect.TypeFor[Bits]()
}

func (d *document) decodeStruct(n *ast.MappingNode, v reflect.Value, path string) {
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = v.Field(i)
			names = append(names, name)
		}
	}
	seen := map[string]int{}
	for _, pair := range n.Values {
		key := pair.Key.GetToken().Value
		inner := strings.TrimPrefix(path+"."+shorten(key, 40), ".")
		if _, ok := pair.Key.(*ast.StringNode); !ok {
			if _, number := pair.Key.(ast.ScalarNode); !number {
				d.reportAt(start(pair.Key), path, "this form of key is not used here", "write a plain key: "+strings.Join(names, ", "))
				continue
			}
		}
		field, ok := fields[key]
		if !ok {
			d.reportAt(start(pair.Key), inner, "this key is unknown", oneOf(key, names))
			continue
		}
		if line := seen[key]; line != 0 {
			d.reportAt(start(pair.Key), inner, fmt.Sprintf("this key is given twice, first on line %d", line), "remove one of the two")
			continue
		}
		seen[key] = start(pair.Key).line
		d.at[inner] = start(pair.Key)
		if scalar, ok := pair.Value.(ast.ScalarNode); ok && scalar.Type() != ast.NullType {
			d.at[inner] = start(scalar)
		}
		d.decode(pair.Value, field, inner)
	}
}

func (d *document) decodeSlice(n *ast.SequenceNode, v reflect.Value, path string) {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values)))
	for i, value := range n.Values {
		inner := fmt.Sprintf("%s[%d]", path, i)
		if value != nil {
			d.at[inner] = start(value)
		}
		d.decode(value, v.Index(i), inner)
	}
}

// decodeScalar reports false when the scalar is of another kind than v wants; every other problem it notes itself.
func (d *document) decodeScalar(n ast.ScalarNode, v reflect.Value, path string) bool {
	text, kind := scalar(n)
	switch target := v.Addr().Interface().(type) {
	case *time.Duration:
		if kind != plainText && kind != quotedText {
			return false
		}
		parsed, err := time.ParseDuration(text)
		if err != nil {
			d.report(path, quote(text)+" is not a duration", "write a number with its unit, ms, s, m or h: 500ms, 10s, 1m30s")
		}
		*target = parsed
		return true
	case *Bytes:
		if kind != plainText && kind != quotedText {
			return false
		}
		size, err := ParseBytes(text)
		if err != nil {
			d.report(path, err.Error(), "write a whole number with its unit, MB, GB or TB: 512MB, 2GB")
		}
		*target = size
		return true
	case **time.Location:
		if kind != plainText && kind != quotedText {
			return false
		}
		zone, err := time.LoadLocation(text)
		if err != nil || text == "" || text == "Local" {
			d.report(path, quote(text)+" is not a time zone", "write an IANA name, for example Asia/Shanghai")
			return true
		}
		*target = zone
		return true
	case *Decimal:
		if kind != number && kind != plainText {
			return false
		}
		scale, err := ParseDecimal(text)
		if err != nil {
			d.report(path, err.Error(), "write a plain decimal, for example 0.01, 1 or 10")
		}
		*target = scale
		return true
	case *Bits:
		if kind != number && kind != plainText {
			return false
		}
		bits, ok := parseBits(text)
		if !ok {
			d.report(path, quote(text)+" names no bits", "write one bit, counted from 0, or the lowest and highest: 3, or 4-7")
		}
		*target = bits
		return true
	}
	switch v.Kind() {
	case reflect.Bool:
		if kind != boolean {
			return false
		}
		v.SetBool(strings.EqualFold(text, "true"))
		return true
	case reflect.Int, reflect.Int64:
		if kind != number && kind != plainText {
			return false
		}
		whole, reason, mend := parseWhole(text)
		if reason != "" {
			d.report(path, reason, mend)
		}
		v.SetInt(whole)
		return true
	case reflect.String:
		if kind != plainText && kind != quotedText {
			return false
		}
		d.decodeText(text, v, path)
		return true
	}
	return false
}

func (d *document) decodeText(text string, v reflect.Value, path string) {
	if strings.ContainsFunc(text, unicode.IsControl) {
		d.report(path, "has a line break or control character", "write it on one line of plain text")
		return
	}
	if n := len([]rune(text)); n > maxTextLength {
		d.report(path, fmt.Sprintf("has %d characters, the most is %d", n, maxTextLength), "write a shorter text")
		return
	}
	v.SetString(text)
	if c, ok := v.Interface().(choice); ok && !slices.Contains(c.choices(), text) {
		v.SetString("") // what depends on it is not judged
		d.report(path, quote(text)+" is not known", oneOf(text, c.choices()))
	}
}

type scalarKind int

const (
	other scalarKind = iota
	plainText
	quotedText
	number
	boolean
)

// scalar is a node's text as it stands in the file, without quotes, and what YAML takes it for.
func scalar(n ast.Node) (string, scalarKind) {
	switch n := n.(type) {
	case *ast.StringNode:
		if n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType {
			return n.Value, quotedText
		}
		return n.Value, plainText
	case *ast.LiteralNode:
		if n.Value != nil {
			return n.Value.Value, quotedText
		}
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, number
	case *ast.BoolNode:
		return n.Token.Value, boolean
	}
	return "", other
}

// describe names a node in a sentence. It quotes no more than the first characters of a scalar.
func describe(n ast.Node) string {
	text, kind := scalar(n)
	switch kind {
	case plainText:
		return "the text " + shorten(text, 40)
	case quotedText:
		return "the quoted text " + quote(text)
	case number:
		return "the number " + shorten(text, 40)
	case boolean:
		return "the word " + text
	}
	switch n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "something else"
}

// wanted names what a field takes, and says how to write it.
func wanted(v reflect.Value) (what, mend string) {
	switch v.Interface().(type) {
	case time.Duration:
		return "a duration with its unit", "write ms, s, m or h behind the number: 10s"
	case Bytes:
		return "a size with its unit", "write MB, GB or TB behind the number: 512MB"
	case *time.Location:
		return "a time zone", "write an IANA name, for example Asia/Shanghai"
	case Bits:
		return "a bit or a range of bits", "write one bit, counted from 0, or the lowest and highest: 3, or 4-7"
	case Decimal:
		return "a number", "write a plain decimal without quotes, for example 0.01"
	}
	switch v.Kind() {
	case reflect.Struct:
		return "a mapping", "write its keys on the lines below, indented by two spaces"
	case reflect.Slice:
		return "a list", "write each entry on a line of its own that begins with a dash"
	case reflect.Bool:
		return "true or false", "write true or false, without quotes"
	case reflect.Int, reflect.Int64:
		return "a whole number", "write it without quotes, for example 12"
	}
	return "a text", "put it in quotes"
}

func quote(text string) string { return fmt.Sprintf("%q", shorten(text, 40)) }

// oneOf mends a misspelt name: with the nearest of the known ones, or with all of them.
func oneOf(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "write one of: " + strings.Join(known, ", ")
}

// nearest is the known name closest to a misspelt one, or empty when none is close. Of two it is the longer: letters
// are left out more often than put in.
func nearest(name string, known []string) string {
	best, least := "", 1+min(3, len(name)/3) // a short name must be right but for its case
	for _, k := range known {
		if n := distance(strings.ToLower(shorten(name, 64)), strings.ToLower(k)); n < least || n == least && best != "" && len(k) > len(best) {
			best, least = k, n
		}
	}
	return best
}

// distance is the edit distance after Damerau and Levenshtein, in bytes: letters put in, left out, changed, or swapped
// with their neighbour.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				change = min(change, rows[i-2][j-2]+1)
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
		}
	}
	return rows[len(a)][len(b)]
}
