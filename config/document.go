package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFileBytes = 256 << 10
	maxDepth     = 32   // lists and mappings in each other
	maxKeys      = 1000 // lines of one mapping
)

// document is a YAML file on its way to a Go value: where each key stands, and what is wrong with it.
type document struct {
	file     string
	at       map[string]position // of what is given, by path: of a scalar itself, of a list or mapping its key
	faulty   map[string]bool     // paths with a problem
	problems Problems
}

type position struct{ line, column int }

var fileStart = position{1, 1}

func newDocument(file string) *document {
	return &document{file: file, at: map[string]position{}, faulty: map[string]bool{}}
}

// given says whether the file has the key.
func (d *document) given(path string) bool {
	_, ok := d.at[path]
	return ok
}

// where is the position of the path, or when it is not given that of the nearest entry around it.
func (d *document) where(path string) position {
	for path != "" {
		if p, ok := d.at[path]; ok {
			return p
		}
		path = parent(path)
	}
	return fileStart
}

// parent is the path of the entry around path, empty for the file.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// report notes a problem of a path, or of the entry around it. A path has one problem at most: what follows from the
// first would only confuse. For the same reason nothing is said of what is inside a faulty entry.
func (d *document) report(path, reason, mend string) { d.reportAt(d.where(path), path, reason, mend) }

func (d *document) reportAt(p position, path, reason, mend string) {
	for around := path; around != ""; around = parent(around) {
		if d.faulty[around] {
			return
		}
	}
	d.faulty[path] = true
	d.problems = append(d.problems, Problem{d.file, p.line, p.column, path, reason, mend})
}

// read decodes a file into what target points to. It notes a problem if the file is not one plain YAML document.
func (d *document) read(data []byte, target any) {
	root := d.parse(data)
	if root == nil {
		return
	}
	if _, ok := root.(*ast.MappingNode); !ok {
		d.reportAt(start(root), "", "the file is "+describe(root)+", not a mapping", "begin with a key, for example version: 1")
		return
	}
	d.decode(root, reflect.ValueOf(target).Elem(), "")
}

// parse gives the document's root, or notes a problem and gives nil.
func (d *document) parse(data []byte) ast.Node {
	if len(data) > maxFileBytes {
		d.report("", fmt.Sprintf("the file has more than %d KiB", maxFileBytes>>10), "split the site over several gateways")
		return nil
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		d.report("", "the file begins with a byte order mark", "save it as UTF-8 without BOM")
		return nil
	}
	if at, reason := firstNonText(data); reason != "" {
		d.reportAt(at, "", reason, "save the file as UTF-8 text; an editor may have used GBK or UTF-16")
		return nil
	}
	tokens := lexer.Tokenize(string(data))
	if at, reason := tooMuch(tokens); reason != "" {
		d.reportAt(at, "", reason, "look for text that does not belong here")
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.syntax(err)
		return nil
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil && len(file.Docs) == 1 {
		d.report("", "the file has no content", "write its keys, as this shows them: hubagent init --reference")
		return nil
	}
	if directive, ok := file.Docs[0].Body.(*ast.DirectiveNode); ok {
		d.reportAt(start(directive), "", "directives are not used here", "remove the line that begins with %")
		return nil
	}
	if len(file.Docs) > 1 {
		at := fileStart
		if mark := file.Docs[1].Start; mark != nil {
			at = position{mark.Position.Line, mark.Position.Column}
		}
		d.reportAt(at, "", "a second document begins here", "keep one document a file and remove the line ---")
		return nil
	}
	return file.Docs[0].Body
}

// syntax notes what the parser says. Of the library's error only the message is used: the rest quotes the file.
func (d *document) syntax(err error) {
	at, reason, mend := fileStart, "this is not valid YAML", "compare with what this prints: hubagent init --reference"
	var e yaml.Error
	if errors.As(err, &e) {
		reason = "this is not valid YAML: " + shorten(e.GetMessage(), 80)
		if t := e.GetToken(); t != nil && t.Position != nil {
			at = position{max(1, t.Position.Line), max(1, t.Position.Column)}
		}
		switch message := e.GetMessage(); {
		case strings.Contains(message, "character '\t'"), strings.HasPrefix(message, "tab character"):
			reason, mend = "this line is indented with a tab", "indent with spaces"
		case strings.Contains(message, "not allowed in this context"):
			mend = "check the indentation, and put a text that holds \": \" in quotes"
		case strings.Contains(message, "not found"), strings.Contains(message, "could not find"):
			mend = "close the bracket or quote that is open here"
		case strings.Contains(message, "reserved character"):
			mend = "put the text in quotes"
		}
	}
	d.reportAt(at, "", reason, mend)
}

// firstNonText finds the first byte that is not UTF-8, or the first control character that no text has.
func firstNonText(data []byte) (at position, reason string) {
	at = fileStart
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == utf8.RuneError && n == 1:
			return at, "this byte is not UTF-8"
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0x7f:
			return at, fmt.Sprintf("this is the control character 0x%02x", r)
		}
		at.column++
		if r == '\n' {
			at = position{at.line + 1, 1}
		}
		data = data[n:]
	}
	return at, ""
}

// tooMuch finds the token where the file gets more than the parser can take in reasonable time, which is quadratic in
// the depth of brackets, in the dashes of one line, and in the keys of one mapping. Blocks nested by indentation need
// no look: the size of the file bounds their depth.
func tooMuch(tokens token.Tokens) (at position, reason string) {
	brackets, dashes, line := 0, 0, 0
	keys := map[int]int{} // lines that begin at a column, since the last that began left of it
	for _, t := range tokens {
		if t.Type == token.CommentType {
			continue
		}
		at = position{t.Position.Line, t.Position.Column}
		first := at.line != line
		if first {
			dashes, line = 0, at.line
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType:
			dashes++
		}
		if first {
			maps.DeleteFunc(keys, func(column, _ int) bool { return column > at.column })
			if t.Type != token.SequenceEntryType {
				keys[at.column]++
			}
		}
		switch {
		case brackets > maxDepth || dashes > maxDepth:
			return at, fmt.Sprintf("lists or mappings are more than %d deep in each other", maxDepth)
		case keys[at.column] > maxKeys:
			return at, fmt.Sprintf("a mapping has more than %d lines", maxKeys)
		}
	}
	return at, ""
}

// start is the position of a node's first character.
func start(n ast.Node) position {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 { // its own token is the first colon
			return start(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return start(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return position{t.Position.Line, t.Position.Column}
	}
	return fileStart
}

// shorten makes a text from the file fit a message: at most limit characters, none of them a line break or other
// control character.
func shorten(text string, limit int) string {
	runes := []rune(text)
	if len(runes) > limit {
		runes = append(runes[:limit-1:limit-1], '…')
	}
	for i, r := range runes {
		if unicode.IsControl(r) {
			runes[i] = ' '
		}
	}
	return string(runes)
}
