package modbus

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hubagent/config"
)

// speed is the kernel's name of a baud rate.
func speed(baud int) (uint32, error) {
	rates := map[int]uint32{
		1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200,
		38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200,
	}
	rate, ok := rates[baud]
	if !ok {
		return 0, fmt.Errorf("baud rate %d is not one that serial ports have", baud)
	}
	return rate, nil
}

// openPort opens a serial port raw, non-blocking so that reads and writes have deadlines, and locked against another
// agent. The lock is advisory and goes with the process; TIOCEXCL would outlive it while anyone has the line open.
func openPort(b config.Bus) (*os.File, error) {
	fd, err := unix.Open(b.Port, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", b.Port, err)
	}
	if err := setUp(fd, b); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot use %s: %w", b.Port, err)
	}
	return os.NewFile(uintptr(fd), b.Port), nil
}

func setUp(fd int, b config.Bus) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another program has it: stop that one, two masters on a line destroy each other's answers")
		}
		return err
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("not a serial port: %w", err)
	}
	rate, err := speed(b.Baud)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | rate
	t.Ispeed, t.Ospeed = rate, rate
	if b.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	switch b.Parity {
	case config.ParityEven:
		t.Cflag |= unix.PARENB
	case config.ParityOdd:
		t.Cflag |= unix.PARENB | unix.PARODD
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
