package main

import (
	"bytes"
	"image"
	"image/jpeg"
	"math/rand/v2"
)

// photo makes a real JPEG of about 3 MB: a gradient with the noise of a camera
// sensor, so that it cannot be compressed any further. The same number gives
// the same bytes.
func photo(number uint64) []byte {
	const width, height = 2600, 1950
	rnd := rand.New(rand.NewPCG(number, 0x70686f746f))
	img := image.NewYCbCr(image.Rect(0, 0, width, height), image.YCbCrSubsampleRatio420)
	for y := range height {
		row := img.Y[y*img.YStride:][:width]
		for x := 0; x < width; x += 8 {
			noise := rnd.Uint64()
			for i := range min(8, width-x) {
				sky := (x+i+y)*160/(width+height) + 24
				row[x+i] = byte(sky) + byte(noise>>(8*i))&63
			}
		}
	}
	for i := range img.Cb {
		img.Cb[i], img.Cr[i] = byte(100+i%57), byte(110+i%43)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 92}); err != nil {
		panic(err) // an image of ours into memory
	}
	return out.Bytes()
}
