package gpio

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/driver/driverreg"
	periph "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"

	"hubagent/config"
	"hubagent/drivers"
)

// Open makes a bus of a GPIO chip, found by its label or name; numbers of chips change between kernels. Lines are
// claimed at their first read.
func Open(b config.Bus, _ drivers.With) (drivers.Bus, error) {
	return newBus(&chip{label: b.Chip, claimed: map[int]pin{}}), nil
}

// chip reads lines through the kernel's GPIO character device. periph's own Func, Chip.Close, and Read on a line that
// was not set as input are never called: they reconfigure lines, or close file descriptors of others.
//
// periph looks for chips once in a process. One that comes or comes back later is not seen before the agent starts anew.
type chip struct {
	label   string
	found   *gpioioctl.GPIOChip
	claimed map[int]pin // lines whose In succeeded
}

// pin is what is needed of a *gpioioctl.GPIOLine.
type pin interface {
	In(periph.Pull, periph.Edge) error
	Read() periph.Level
	Close()
}

// level reads a line between two looks at whether its chip is there: periph's Read keeps its errors to itself and says
// low, so the level of a chip that was pulled out would pass for a measured one. In says them, and leaves a line that
// is an input as it is. What the chip itself does not notice, such as a failed transfer to an I2C expander, stays
// unseen.
func (c *chip) level(offset int) (bool, error) {
	line := c.claimed[offset]
	if line == nil {
		var err error
		if line, err = c.claim(offset); err != nil {
			return false, err
		}
		c.claimed[offset] = line
	} else if err := c.input(line, offset); err != nil {
		return false, err // before Read, which would log it at every poll
	}
	high := line.Read() == periph.High
	return high, c.input(line, offset)
}

func (c *chip) claim(offset int) (pin, error) {
	if err := c.find(); err != nil {
		return nil, err
	}
	if offset >= c.found.LineCount() {
		return nil, fmt.Errorf("chip %s has lines 0 to %d, and no line %d", c.label, c.found.LineCount()-1, offset)
	}
	line := c.found.ByNumber(offset)
	return line, c.input(line, offset)
}

// input sets a line as input. A line for which it fails must not be read.
func (c *chip) input(line pin, offset int) error {
	if err := line.In(periph.Float, periph.NoEdge); err != nil {
		return fmt.Errorf("cannot use line %d of chip %s: %w; if the chip was away, restart the agent", offset, c.label, err)
	}
	return nil
}

func (c *chip) find() error {
	if c.found != nil {
		return nil
	}
	if err := keepFile0(func() error { _, err := driverreg.Init(); return err }); err != nil {
		return fmt.Errorf("cannot look for GPIO chips: %w", err)
	}
	var labels []string
	for _, chip := range gpioioctl.Chips {
		if chip.Label() == c.label || chip.Name() == c.label {
			c.found = chip
			return nil
		}
		labels = append(labels, chip.Label())
	}
	if len(labels) == 0 {
		return errors.New("this machine shows no GPIO chip: is /dev/gpiochip0 there, and may the agent open it? Restart the agent then")
	}
	return fmt.Errorf("there is no GPIO chip %s; there are: %s", c.label, strings.Join(labels, ", "))
}

// keepFile0 sees to it that file descriptor 0 is open after do. Where two nodes are one chip, as gpiochip0 and gpiochip4
// are on a Raspberry Pi, periph's Init closes 0. The next line claimed would get that number, which to periph means a
// line that was not claimed: it would read as low for ever.
func keepFile0(do func() error) error {
	spare, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("cannot hold standard input: %w", err)
	}
	defer unix.Close(spare)
	err = do()
	if _, gone := unix.FcntlInt(0, unix.F_GETFD, 0); gone != nil {
		err = errors.Join(err, unix.Dup3(spare, 0, 0))
	}
	return err
}

func (c *chip) close() error {
	for offset, line := range c.claimed {
		line.Close()
		delete(c.claimed, offset)
	}
	return nil
}
