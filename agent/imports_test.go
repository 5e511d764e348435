package main

import (
	"os/exec"
	"strings"
	"testing"
)

// mayImport says which of our packages a package may import, by prefix. Data goes one way, and so do imports.
var mayImport = []struct {
	pkg     string
	imports []string
}{
	{"config", nil},
	{"buffer", nil},
	{"drivers", []string{"config"}},
	{"drivers/", []string{"config", "drivers"}},
	{"agent/broker", nil},
	{"agent/broker/embedded", nil},
	{"agent/poll", []string{"config", "drivers"}},
	{"agent/scan", []string{"config", "drivers"}},
	{"agent/contract", []string{"drivers", "config"}},
	{"agent/card", nil},
	{"agent/keys", []string{"agent/contract", "buffer", "config"}},
	{"agent/record", []string{"agent/contract", "buffer", "config", "drivers"}},
	{"agent/uplink", []string{"agent/broker", "agent/contract", "buffer", "config"}},
	{"agent/receiver", []string{"agent/broker", "agent/contract"}},
	{"agent/status", []string{"config", "drivers"}},
	{"agent/demo", []string{"agent/broker/embedded", "agent/contract", "agent/keys", "agent/receiver", "agent/record", "buffer", "config", "drivers"}},
	{"agent/realparts", nil}, // tests only
	{"agent", []string{""}},  // package main: everything; nothing imports it, which Go sees to
}

func TestImportRules(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}}{{range .Imports}} {{.}}{{end}}", "hubagent/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		field := strings.Fields(line)
		pkg := strings.TrimPrefix(field[0], "hubagent/")
		allowed, known := rule(pkg)
		if !known {
			t.Errorf("package %s has no import rule: add it to mayImport", pkg)
			continue
		}
		for _, imp := range field[1:] {
			if imp, ours := strings.CutPrefix(imp, "hubagent/"); ours && !covers(allowed, imp) {
				t.Errorf("%s imports %s, which the layout does not allow", pkg, imp)
			}
		}
	}
}

func rule(pkg string) ([]string, bool) {
	for _, r := range mayImport {
		if r.pkg == pkg || strings.HasSuffix(r.pkg, "/") && strings.HasPrefix(pkg, r.pkg) {
			return r.imports, true
		}
	}
	return nil, false
}

func covers(allowed []string, imp string) bool {
	for _, a := range allowed {
		if a == "" || a == imp || strings.HasPrefix(imp, a+"/") {
			return true
		}
	}
	return false
}
