package sim

import (
	"math"
	"strings"
	"time"
)

// A bin's day: residents come in the morning and in the evening, and it is collected twice.
const (
	peakTime      = 7.5 / 24 // time of day when most residents come, and again half a day later
	peakShare     = 0.8      // how much more than on average come at the peaks; as many less come at noon and at night
	wrongPerBlock = 2        // of blockSize deposits, so many are in the wrong bin: 92 % are right
	blockSize     = 25
	kgPerDeposit  = 0.35
	fillAfter     = 3  // per cent left in a bin that was just collected
	fillBefore    = 91 // per cent that half a day adds
)

// bin gives deposits, correct, fill, weight, temperature, voltage and uptime. A suffix names a kind of waste of its own counters, as in
// deposits_kitchen and correct_kitchen.
func (w World) bin(device, point string, t time.Time) (v float64, known bool) {
	what, waste, _ := strings.Cut(point, "_")
	days := w.days(t)
	switch what {
	case "deposits":
		return w.deposits(device, waste, days), true
	case "correct":
		return w.correct(device, waste, w.deposits(device, waste, days)), true
	case "fill":
		perHalfDay := w.depositsPerDay(device, waste) / 2
		return fillAfter + math.Round(fillBefore*w.sinceCollection(device, waste, days)/perHalfDay), true
	case "weight":
		return kgPerDeposit * (1 + w.sinceCollection(device, waste, days)), true
	case "temperature":
		return 22 + w.between(device, point, -2, 2) + 6*math.Sin(2*math.Pi*(days-0.375)), true
	case "voltage": // of its 12 V battery, charged by day
		return 12.3 + 0.3*math.Sin(2*math.Pi*(days-0.375)), true
	case "uptime":
		return math.Floor(w.seconds(t) + w.between(device, point, 1e5, 1e6)), true
	}
	return 0, false
}

// deposits is how often residents have used a bin: a whole number that only grows. Deposit k comes at a random place
// between k and k+1 of the expected course, so that no sum over the past is needed.
func (w World) deposits(device, waste string, days float64) float64 {
	// A bin in use for some days at Start, in whole days to keep the time of day.
	days += math.Floor(w.between(device, "age", 2, 8))
	if days <= 0 {
		return 0
	}
	// The integral of 1 + peakShare*cos(4 pi (x - peakTime)), the share of the day's residents that comes at x.
	course := days + peakShare/(4*math.Pi)*(math.Sin(4*math.Pi*(days-peakTime))+math.Sin(4*math.Pi*peakTime))
	whole, part := math.Modf(w.depositsPerDay(device, waste) * course)
	if part >= w.chance(device, "deposit "+waste, int64(whole)) {
		whole++
	}
	return whole
}

func (w World) depositsPerDay(device, waste string) float64 {
	return math.Floor(w.between(device, "per day "+waste, 160, 240))
}

// correct is how many of the first deposits were right: wrongPerBlock places of every block are wrong.
func (w World) correct(device, waste string, deposits float64) float64 {
	block := math.Floor(deposits / blockSize)
	rest := deposits - block*blockSize
	right := block*(blockSize-wrongPerBlock) + rest
	// Two places that are never the same: the second is drawn as a distance from the first.
	first := math.Floor(blockSize * w.chance(device, "wrong "+waste, int64(block)))
	apart := 1 + math.Floor((blockSize-1)*w.chance(device, "wrong too "+waste, int64(block)))
	for _, place := range [wrongPerBlock]float64{first, math.Mod(first+apart, blockSize)} {
		if place < rest {
			right--
		}
	}
	return right
}

// sinceCollection is how many deposits lie in the bin. Bins are collected one after another, not all at once.
func (w World) sinceCollection(device, waste string, days float64) float64 {
	turn := w.between(device, "collection", 0, 0.5)
	collected := turn + math.Floor((days-turn)*2)/2
	return w.deposits(device, waste, days) - w.deposits(device, waste, collected)
}
