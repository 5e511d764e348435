// Package status shows how a gateway stands: a page for people, JSON, metrics and a health check for programs. It only
// ever reads, so it needs no login; it asks nothing of any other address.
package status

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzhttp"
)

// server answers requests from what source says at that moment.
type server struct {
	source    func() Snapshot
	log       *slog.Logger
	languages []*language
	templates *template.Template
	policy    string // Content-Security-Policy

	mu sync.Mutex // held while a reply is made
}

// New is the handler of the page at /, of /api/v1/status, /healthz and /metrics. It calls source once for each
// request, never twice at the same time.
func New(source func() Snapshot, log *slog.Logger) http.Handler {
	sum := sha256.Sum256([]byte(style))
	s := &server{
		source:    source,
		log:       log,
		languages: languages(),
		templates: template.Must(template.New("").Parse(pageTemplate)),
		policy: "default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.answer(s.page))
	mux.HandleFunc("/api/v1/status", s.answer(s.api))
	mux.HandleFunc("/healthz", s.answer(s.healthz))
	mux.HandleFunc("/metrics", s.answer(s.metrics))
	mux.HandleFunc("/", s.answer(s.missing))
	compress, err := gzhttp.NewWrapper(gzhttp.EnableZstd(false)) // its buffers are larger than what it saves here
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return s.guard(compress(mux))
}

// guard is around every answer: methods, headers, and a log entry where a bug would have ended the connection only.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if bug := recover(); bug != nil {
				s.log.Error("cannot answer request", "path", r.URL.Path, "panic", bug, "stack", string(debug.Stack()))
				panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
			}
		}()
		h := w.Header()
		h.Set("Content-Security-Policy", s.policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY") // frame-ancestors for old phones
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// reply is an answer that is complete.
type reply struct {
	code        int
	contentType string
	body        []byte
}

// answer makes one reply at a time, so that many readers cost no more memory than one, and none of the processor that
// polling needs beyond one core. It sends outside the lock: a slow client keeps nobody waiting.
func (s *server) answer(build func(*http.Request) reply) http.HandlerFunc {
	alone := func(r *http.Request) reply {
		s.mu.Lock()
		defer s.mu.Unlock()
		return build(r)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		a := alone(r)
		w.Header().Set("Content-Type", a.contentType)
		w.WriteHeader(a.code)
		w.Write(a.body) // an error here is the client's: it has gone
	}
}

func (s *server) page(r *http.Request) reply {
	l, other := s.language(r)
	p := l.page(s.source())
	p.Other = other
	p.Hold = r.URL.Query().Has("hold")
	return s.render(http.StatusOK, "page", p)
}

func (s *server) missing(r *http.Request) reply {
	l, _ := s.language(r)
	return s.render(http.StatusNotFound, "missing", page{language: l})
}

// language is the one a request asks for, and the one to offer instead.
func (s *server) language(r *http.Request) (chosen, other *language) {
	code := r.URL.Query().Get("lang")
	i := max(0, slices.IndexFunc(s.languages, func(l *language) bool { return l.Code == code }))
	return s.languages[i], s.languages[(i+1)%len(s.languages)]
}

func (s *server) render(code int, name string, p page) reply {
	p.CSS = template.CSS(style)
	var b bytes.Buffer
	if err := s.templates.ExecuteTemplate(&b, name, p); err != nil {
		panic("BUG: " + err.Error())
	}
	return reply{code, "text/html; charset=utf-8", b.Bytes()}
}

func (s *server) api(*http.Request) reply {
	snapshot := s.source()
	if snapshot.Devices == nil {
		snapshot.Devices = []Device{} // [] and not null, for whoever loops over it
	}
	b, err := json.Marshal(snapshot)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return reply{http.StatusOK, "application/json; charset=utf-8", append(b, '\n')}
}

func (s *server) healthz(*http.Request) reply {
	code, text := http.StatusOK, "ok"
	if why := s.source().Journal.Error; why != "" {
		code, text = http.StatusServiceUnavailable, strings.Join(strings.Fields(why), " ")
	}
	return reply{code, "text/plain; charset=utf-8", []byte(text + "\n")}
}

func (s *server) metrics(*http.Request) reply {
	return reply{http.StatusOK, "text/plain; version=0.0.4; charset=utf-8", metrics(s.source())}
}
