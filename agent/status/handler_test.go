package status

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

var (
	update  = flag.Bool("update", false, "rewrite the golden files")
	preview = flag.String("preview", "", "serve the golden snapshots on this address instead of testing")
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func get(t *testing.T, s Snapshot, target string) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	New(func() Snapshot { return s }, quiet()).ServeHTTP(w, httptest.NewRequest("GET", target, nil))
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func testSnapshots() map[string]Snapshot {
	return map[string]Snapshot{"good": goodSnapshot(), "troubled": troubledSnapshot(), "fresh": freshSnapshot()}
}

func TestGolden(t *testing.T) {
	for name, snapshot := range testSnapshots() {
		for file, target := range map[string]string{
			"zh.html": "/", "en.html": "/?lang=en", "json": "/api/v1/status", "metrics": "/metrics",
		} {
			path := filepath.Join("testdata", name+"."+file)
			got := strings.Replace(body(t, get(t, snapshot, target)), strings.TrimSpace(style), "/* style.css */", 1)
			if file == "json" {
				var indented bytes.Buffer
				if err := json.Indent(&indented, []byte(got), "", "  "); err != nil {
					t.Fatal(err)
				}
				got = indented.String()
			}
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s has changed; see the difference with -update and git diff. First line that differs:\n%s", path, firstDifference(got, string(want)))
			}
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return "got:  " + g[i] + "\nwant: " + strings.Join(w[min(i, len(w)):min(i+1, len(w))], "")
		}
	}
	return "the end is missing"
}

// TestPreview serves the golden snapshots for whoever wants to look at them:
//
//	go test ./agent/status -run TestPreview -preview 127.0.0.1:8090 -timeout 1h
func TestPreview(t *testing.T) {
	if *preview == "" {
		t.Skip("no -preview")
	}
	mux := http.NewServeMux()
	snapshots := testSnapshots()
	snapshots["large"] = largeSnapshot()
	for name, snapshot := range snapshots {
		mux.Handle("/"+name+"/", http.StripPrefix("/"+name, New(func() Snapshot { return snapshot }, quiet())))
	}
	t.Fatal(http.ListenAndServe(*preview, mux))
}

func TestUnknownIsNull(t *testing.T) {
	for name, v := range map[string]drivers.Value{
		"none": {}, "NaN": drivers.Float64(math.NaN()), "infinite": drivers.Float32(float32(math.Inf(1))),
	} {
		b, err := json.Marshal(Point{Name: "fill", Value: v})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte(`"value":null`)) || bytes.Contains(b, []byte("0001-01-01")) {
			t.Errorf("%s: %s", name, b)
		}
	}
	b, _ := json.Marshal(Point{Value: drivers.Uint(math.MaxUint64)})
	if !bytes.Contains(b, []byte(`"value":18446744073709551615`)) {
		t.Errorf("64-bit counter: %s", b)
	}
}

func TestPageNeverInventsZero(t *testing.T) {
	s := emptySnapshot()
	p := point("fill", "满溢度", "fill level", "%", drivers.Float64(math.NaN()), true)
	p.Quality = drivers.Bad
	s.Devices = []Device{testDevice(config.Bin, "bin-1", "垃圾桶", "m", "b", 10*time.Second, p)}
	page := body(t, get(t, s, "/"))
	if !strings.Contains(page, "满溢度 <b>—</b>") || strings.Contains(page, "NaN") || strings.Contains(page, "<b>0</b>") {
		t.Error(page)
	}
}

func TestNamesAreEscaped(t *testing.T) {
	const evil = `<script>alert("x")</script>`
	s := troubledSnapshot()
	s.Site, s.Gateway, s.Version = evil, evil, evil
	s.Uplink.Error, s.Journal.Error, s.Uplink.Broker, s.Clock = evil, evil, `javascript:alert(1)">`+evil, evil
	for i := range s.Devices {
		d := &s.Devices[i]
		d.Label, d.Name, d.Model, d.Bus, d.Error, d.Kind = evil, `"><script>`, evil, evil, evil, config.DeviceKind(evil)
		for j := range d.Points {
			d.Points[j].Title, d.Points[j].Unit, d.Points[j].Why = config.Text{ZH: evil, EN: evil}, evil, evil
		}
	}
	for _, target := range []string{"/", "/?lang=en", "/?lang=%22%3E%3Cscript%3E", "/<script>"} {
		if page := body(t, get(t, s, target)); strings.Contains(page, "<script") {
			t.Errorf("%s: a script got through:\n%s", target, page)
		}
	}
	if text := body(t, get(t, s, "/metrics")); !strings.Contains(text, `version="<script>alert(\"x\")</script>"`) {
		t.Errorf("label not escaped:\n%s", text)
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	s := troubledSnapshot()
	s.Devices[0].Name = "a\\b\"c\nd\xff"
	seen := map[string]bool{}
	family := ""
	for line := range strings.Lines(body(t, get(t, s, "/metrics"))) {
		if help, ok := strings.CutPrefix(line, "# HELP "); ok {
			family, _, _ = strings.Cut(help, " ")
			if seen[family] {
				t.Errorf("family %s comes twice", family)
			}
			seen[family] = true
			continue
		}
		if strings.HasPrefix(line, "# TYPE "+family+" ") {
			continue
		}
		if rest, ok := strings.CutPrefix(line, family); !ok || rest[0] != '{' && rest[0] != ' ' || strings.Contains(rest, "NaN") {
			t.Errorf("line outside its family %s: %s", family, line)
		}
	}
	if !strings.Contains(body(t, get(t, s, "/metrics")), `device="a\\b\"c\nd�"`) {
		t.Error("label value not escaped")
	}
}

func TestHealthz(t *testing.T) {
	s := goodSnapshot()
	if r := get(t, s, "/healthz"); r.StatusCode != 200 || body(t, r) != "ok\n" {
		t.Errorf("healthy: %d", r.StatusCode)
	}
	s.Journal.Error = "cannot write block:\n no space left on device"
	r := get(t, s, "/healthz")
	if text := body(t, r); r.StatusCode != 503 || text != "cannot write block: no space left on device\n" {
		t.Errorf("journal failed: %d %q", r.StatusCode, text)
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		method, target string
		code           int
		contentType    string
		contains       string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", `<html lang="zh-CN">`},
		{"GET", "/?lang=zh", 200, "text/html; charset=utf-8", `<html lang="zh-CN">`},
		{"GET", "/?lang=en", 200, "text/html; charset=utf-8", `<html lang="en">`},
		{"GET", "/?lang=fr", 200, "text/html; charset=utf-8", `<html lang="zh-CN">`},
		{"GET", "/?lang=en", 200, "text/html; charset=utf-8", `<meta http-equiv="refresh" content="10">`},
		{"GET", "/?lang=en&hold=1", 200, "text/html; charset=utf-8", `<a href="?lang=zh&amp;hold=1"`},
		{"GET", "/api/v1/status", 200, "application/json; charset=utf-8", `"clock":"ok"`},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "hubagent_uplink_online 1\n"},
		{"GET", "/nothing", 404, "text/html; charset=utf-8", "没有这个页面"},
		{"GET", "/nothing?lang=en", 404, "text/html; charset=utf-8", "No such page"},
		{"HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"POST", "/", 405, "text/plain; charset=utf-8", ""},
		{"DELETE", "/nothing", 405, "text/plain; charset=utf-8", ""},
	} {
		w := httptest.NewRecorder()
		New(goodSnapshot, quiet()).ServeHTTP(w, httptest.NewRequest(c.method, c.target, nil))
		if w.Code != c.code || w.Header().Get("Content-Type") != c.contentType || !strings.Contains(w.Body.String(), c.contains) {
			t.Errorf("%s %s: %d %q, without %q", c.method, c.target, w.Code, w.Header().Get("Content-Type"), c.contains)
		}
		if c.code == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow: %q", c.method, c.target, w.Header().Get("Allow"))
		}
		for _, h := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"} {
			if w.Header().Get(h) == "" {
				t.Errorf("%s %s: no %s", c.method, c.target, h)
			}
		}
		if got := w.Header().Get("Cache-Control"); got != "no-store" {
			t.Errorf("%s %s: Cache-Control %q", c.method, c.target, got)
		}
	}
	if strings.Contains(body(t, get(t, goodSnapshot(), "/?hold=1")), "http-equiv") {
		t.Error("a page on hold refreshes itself")
	}
}

// TestPolicyAllowsTheStyle computes the style's hash from the page as a browser does.
func TestPolicyAllowsTheStyle(t *testing.T) {
	r := get(t, goodSnapshot(), "/")
	page := body(t, r)
	_, css, _ := strings.Cut(page, "<style>")
	css, _, _ = strings.Cut(css, "</style>")
	sum := sha256.Sum256([]byte(css))
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q does not go with a style of %d bytes", policy, len(css))
	}
	for _, outside := range []string{"style=", "http://", "https://", "<script", "src="} {
		if strings.Contains(page, outside) {
			t.Errorf("page has %q", outside)
		}
	}
}

func TestBugIsLogged(t *testing.T) {
	var log bytes.Buffer
	h := New(func() Snapshot { panic("BUG: test") }, slog.New(slog.NewTextHandler(&log, nil)))
	defer func() {
		if recover() != http.ErrAbortHandler || !strings.Contains(log.String(), "BUG: test") {
			t.Errorf("log: %s", log.String())
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

func TestLargePageIsSmallOnTheWire(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Accept-Encoding", "gzip, zstd")
	New(largeSnapshot, quiet()).ServeHTTP(w, r)
	if w.Header().Get("Content-Encoding") != "gzip" || !strings.Contains(w.Header().Get("Vary"), "Accept-Encoding") {
		t.Fatalf("not compressed: %v", w.Header())
	}
	size := w.Body.Len()
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("145 devices of 9 points: %d bytes, %d compressed", len(page), size)
	if size > 20_000 {
		t.Errorf("page takes %d bytes on the wire, more than 20000", size)
	}
}

func BenchmarkPage(b *testing.B) {
	s := largeSnapshot()
	h := New(func() Snapshot { return s }, quiet())
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}
