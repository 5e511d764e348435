package modbus

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// plainConn is a TCP connection that reads and writes without telling Go's scheduler of each system call. The socket
// never blocks, so there is nothing to tell; and telling it wakes the runtime's monitor thread, whose coming and going
// took a fifth of the agent's processor time where 145 devices stand behind one connection. Waiting is done by the
// runtime's poller as ever, with deadlines.
type plainConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

// plain makes a plainConn of a TCP connection, and leaves any other as it is.
func plain(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &plainConn{tcp, raw}
}

func (c *plainConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := call("read", c.raw.Read, syscall.SYS_READ, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (c *plainConn) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := call("write", c.raw.Write, syscall.SYS_WRITE, b[done:])
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// call reads or writes b as soon as the socket is ready; ready is RawConn's Read or Write.
func call(name string, ready func(func(fd uintptr) bool) error, number uintptr, b []byte) (int, error) {
	var n uintptr
	var errno syscall.Errno
	err := ready(func(fd uintptr) bool {
		for {
			n, _, errno = syscall.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
			if errno != syscall.EINTR {
				return errno != syscall.EAGAIN
			}
		}
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError(name, errno)
	}
	if err != nil {
		return 0, err
	}
	return int(n), nil
}
