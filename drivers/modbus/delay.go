package modbus

import "time"

// delay is what is known of how long a unit takes to answer: mean and mean deviation, smoothed as TCP does it (RFC 6298,
// section 2). A device that is always fast need not be waited for as long as its manual allows when it dies.
type delay struct {
	mean, deviation time.Duration
	known           bool
}

// add takes note of an answer.
func (d *delay) add(took time.Duration) {
	if !d.known {
		*d = delay{mean: took, deviation: took / 2, known: true}
		return
	}
	d.deviation += ((took - d.mean).Abs() - d.deviation) / 4
	d.mean += (took - d.mean) / 8
}

// forget makes the next wait the longest: after a silence nothing is known of what the device is busy with.
func (d *delay) forget() { *d = delay{} }

// timeout is how long to wait for an answer, from least to longest.
func (d *delay) timeout(least, longest time.Duration) time.Duration {
	if !d.known || least <= 0 {
		return longest
	}
	return min(max(d.mean+4*d.deviation, least), longest)
}
