package drivertest

import (
	"net"
	"sync"
)

// Wire is a serial line or connection in memory: two ends with deadlines. Unlike net.Pipe it has room in between, as a
// kernel's queues have: a write returns at once, and what nobody reads stays for who reads next. Closing either end
// closes the other once that has read everything. It has no clock of its own, so testing/synctest can run it.
func Wire() (near, far net.Conn) {
	near, a := net.Pipe()
	far, b := net.Pipe()
	go carry(a, b)
	go carry(b, a)
	return near, far
}

// carry takes what comes from one end to the other, chunk by chunk.
func carry(from, to net.Conn) {
	queue := newQueue()
	go func() {
		defer queue.close()
		for {
			chunk := make([]byte, 512)
			n, err := from.Read(chunk)
			if err != nil {
				return
			}
			queue.put(chunk[:n])
		}
	}()
	defer to.Close()
	defer from.Close()
	for {
		chunk, ok := queue.take()
		if !ok {
			return
		}
		if _, err := to.Write(chunk); err != nil {
			return
		}
	}
}

// queue holds chunks without bound.
type queue struct {
	mu     sync.Mutex
	filled *sync.Cond
	chunks [][]byte
	closed bool
}

func newQueue() *queue {
	q := &queue{}
	q.filled = sync.NewCond(&q.mu)
	return q
}

func (q *queue) put(chunk []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks = append(q.chunks, chunk)
	q.filled.Signal()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.filled.Signal()
}

func (q *queue) take() (chunk []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 {
		if q.closed {
			return nil, false
		}
		q.filled.Wait()
	}
	chunk, q.chunks = q.chunks[0], q.chunks[1:]
	return chunk, true
}
