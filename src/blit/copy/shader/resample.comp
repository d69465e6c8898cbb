// Makes pixels of one picture out of pixels of another: scaled, turned, converted.
//
// Both pictures lie row by row in storage buffers, plane after plane. Each invocation makes one 32-bit word of
// the destination: all components of which the word has a part. Positions, weights, matrices and rounding are
// those of `resample.rs` and `convert.rs`; `parameters.rs` writes the parameters.

#version 450

layout(local_size_x = 8, local_size_y = 8) in;

const uint ALPHA = 3;

/// Where the bits of a component are, and what its numbers mean: value = (number - zero) / unit.
struct Component {
    /// Plane; lowest bit in a block; bits, 0 where the format has no such component; bits from one sample of a
    /// block to the next.
    uvec4 place;
    /// log2 of the pixels across, and of those down, that share a sample; samples in a block; 1 for half floats.
    uvec4 kind;
    /// Zero and unit.
    vec4 numbers;
};

struct Plane {
    /// First byte; bytes from row to row; bytes of a block; log2 of the pixels of a block.
    uvec4 place;
    /// log2 of the subsampling across and down; a bit for each component of the source that is needed to make
    /// this plane; the most samples of a component in a block.
    uvec4 more;
};

const uint MAX_JOBS = 48;

const uint SAME = 0;
const uint TO_RGB = 1;
const uint TO_YCBCR = 2;

layout(std140, binding = 0) uniform Parameters {
    Component from[4];
    Component to[4];
    Plane from_planes[3];
    Plane to_planes[3];
    /// What the destination's columns show, and its rows: first column or row of the source's box, how many there
    /// are, how many the destination's box has, and flags.
    ivec4 axes[2];
    /// The destination's box: left, top, right, bottom.
    uvec4 bounds;
    /// Model; whether columns of the destination are rows of the source; whether alpha is made 1.
    uvec4 how;
    /// To RGB: Cr to red, Cb to green, Cr to green, Cb to blue. To YCbCr: the weights of red, green and blue.
    vec4 matrix;
    /// To YCbCr: the spans of Cb and Cr.
    vec4 spans;
    /// For each job two: plane, first word, first row, words; rows.
    uvec4 jobs[2 * MAX_JOBS];
};

const int MIRRORED = 1;
const int LINEAR = 2;

layout(std430, binding = 1) readonly buffer From {
    uint source[];
};

layout(std430, binding = 2) writeonly buffer To {
    uint destination[];
};

/// Bits that begin at a bit after a byte of the source: 16 at most, so that two words have them.
uint bits_at(uint at, uint bit, uint bits) {
    at += bit >> 3;
    uint shift = (at & 3u) * 8u + (bit & 7u);
    uint word = at >> 2;
    uint found = source[word] >> shift;
    if (shift + bits > 32u) {
        found |= source[word + 1u] << (32u - shift);
    }
    return found & ((1u << bits) - 1u);
}

float from_half(uint number) {
    uint sign = (number & 0x8000u) << 16;
    uint exponent = (number >> 10) & 0x1fu;
    uint fraction = number & 0x3ffu;
    if (exponent == 0u) {
        // Zero, or so many times 2^-24.
        return uintBitsToFloat(sign | floatBitsToUint(float(fraction) * 5.9604644775390625e-8));
    }
    uint wide = exponent == 0x1fu ? 0xffu : exponent + 112u;
    return uintBitsToFloat(sign | (wide << 23) | (fraction << 13));
}

/// The nearest; of two, the even one.
uint to_half(float value) {
    uint bits = floatBitsToUint(value);
    uint sign = (bits >> 16) & 0x8000u;
    uint magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        return sign | 0x7e00u;
    }
    // 65520 is the first that is rounded to infinity.
    if (magnitude >= 0x477ff000u) {
        return sign | 0x7c00u;
    }
    // Below 2^-14 there are only multiples of 2^-24.
    if (magnitude < (113u << 23)) {
        return sign | uint(roundEven(uintBitsToFloat(magnitude) * 16777216.0));
    }
    uint odd = (magnitude >> 13) & 1u;
    return sign | (((magnitude + 0xfffu + odd) >> 13) - (112u << 10));
}

/// A component of a pixel of the source.
float component_at(uint index, uint x, uint y) {
    uvec4 place = from[index].place;
    Plane plane = from_planes[place.x];
    uint pixel = x >> plane.more.x;
    uint block = pixel >> plane.place.w;
    uint within = pixel & ((1u << plane.place.w) - 1u);
    uint row = plane.place.x + (y >> plane.more.y) * plane.place.y;
    uint number = bits_at(row + block * plane.place.z, place.y + within * place.w, place.z);
    if (from[index].kind.w != 0u) {
        return from_half(number);
    }
    return (float(number) - from[index].numbers.x) / from[index].numbers.y;
}

/// A pixel of the source: the components that are needed of it, and alpha, which is 1 where there is none.
vec4 pixel_at(uint x, uint y, uint needed) {
    vec4 pixel = vec4(0.0, 0.0, 0.0, 1.0);
    for (uint index = 0u; index < 4u; index++) {
        if ((needed & (1u << index)) != 0u && from[index].place.z != 0u) {
            pixel[index] = component_at(index, x, y);
        }
    }
    return pixel;
}

/// Columns or rows of the source, and how much of the second is shown.
struct Tap {
    uint first;
    uint second;
    float weight;
};

Tap tap_of(uint axis, uint at) {
    int start = axes[axis].x;
    int from_length = axes[axis].y;
    int to_length = axes[axis].z;
    int place = int(at);
    if ((axes[axis].w & MIRRORED) != 0) {
        place = to_length - 1 - place;
    }
    int last = from_length - 1;
    int centre = (2 * place + 1) * from_length;
    int unit = 2 * to_length;
    if ((axes[axis].w & LINEAR) == 0) {
        uint nearest = uint(start + clamp(centre / unit, 0, last));
        return Tap(nearest, nearest, 0.0);
    }
    int position = centre - to_length;
    int below = position < 0 ? -1 : position / unit;
    int rest = position - below * unit;
    uint first = uint(start + clamp(below, 0, last));
    if (rest == 0) {
        return Tap(first, first, 0.0);
    }
    uint second = uint(start + clamp(below + 1, 0, last));
    return Tap(first, second, float(rest) / float(unit));
}

vec4 between(vec4 first, vec4 second, float weight) {
    return first + (second - first) * weight;
}

/// What a row of the source shows at a column's tap.
vec4 in_row(Tap column, uint row, uint needed) {
    vec4 first = pixel_at(column.first, row, needed);
    if (column.weight == 0.0) {
        return first;
    }
    return between(first, pixel_at(column.second, row, needed), column.weight);
}

vec4 converted(vec4 pixel) {
    if (how.x == TO_RGB) {
        float green = pixel.x + matrix.y * pixel.y + matrix.z * pixel.z;
        return vec4(pixel.x + matrix.x * pixel.z, green, pixel.x + matrix.w * pixel.y, pixel.w);
    }
    if (how.x == TO_YCBCR) {
        vec3 rgb = clamp(pixel.xyz, 0.0, 1.0);
        float luma = matrix.x * rgb.x + matrix.y * rgb.y + matrix.z * rgb.z;
        return vec4(luma, (rgb.z - luma) / spans.x, (rgb.x - luma) / spans.y, pixel.w);
    }
    return pixel;
}

/// A pixel of the destination, inside of its box.
vec4 shown(uint x, uint y, uint needed) {
    Tap across = tap_of(0u, x - bounds.x);
    Tap down = tap_of(1u, y - bounds.y);
    Tap column = across;
    Tap row = down;
    if (how.y != 0u) {
        column = down;
        row = across;
    }
    vec4 pixel = in_row(column, row.first, needed);
    if (row.weight != 0.0) {
        pixel = between(pixel, in_row(column, row.second, needed), row.weight);
    }
    return converted(pixel);
}

/// The mean of the pixels that share a sample, but of those past the box's edge.
vec4 mean_of(uint x, uint y, uvec2 shared_by, uint needed) {
    uint right = min(x + (1u << shared_by.x), bounds.z);
    uint bottom = min(y + (1u << shared_by.y), bounds.w);
    vec4 sum = vec4(0.0);
    for (uint row = y; row < bottom; row++) {
        for (uint column = x; column < right; column++) {
            sum += shown(column, row, needed);
        }
    }
    return sum / float((right - x) * (bottom - y));
}

/// The nearest number; the last one for values past it, and the first for what is no number.
uint encoded(uint index, float value) {
    if (to[index].kind.w != 0u) {
        return to_half(value);
    }
    float last = float((1u << to[index].place.z) - 1u);
    float number = value * to[index].numbers.y + to[index].numbers.x + 0.5;
    return number > 0.0 ? uint(min(number, last)) : 0u;
}

void main() {
    uvec4 job = jobs[2u * gl_GlobalInvocationID.z];
    if (gl_GlobalInvocationID.x >= job.w || gl_GlobalInvocationID.y >= jobs[2u * gl_GlobalInvocationID.z + 1u].x) {
        return;
    }
    Plane plane = to_planes[job.x];
    uint first_byte = (job.y + gl_GlobalInvocationID.x) * 4u;
    uint plane_row = job.z + gl_GlobalInvocationID.y;
    uint y = plane_row << plane.more.y;
    uint needed = plane.more.z;
    uint last_block = (first_byte + 3u) / plane.place.z;
    // What was computed last: components of one pixel mostly lie in one word.
    uvec4 known = uvec4(0xffffffffu);
    vec4 pixel = vec4(0.0);
    uint word = 0u;
    for (uint block = first_byte / plane.place.z; block <= last_block; block++) {
        for (uint number = 0u; number < plane.more.w; number++) {
            for (uint index = 0u; index < 4u; index++) {
                uvec4 place = to[index].place;
                uvec4 kind = to[index].kind;
                if (place.z == 0u || place.x != job.x || number >= kind.z) {
                    continue;
                }
                // Pixels of the picture, and of the plane.
                uint x = (block << (plane.place.w + plane.more.x)) + (number << kind.x);
                uint within = (x >> plane.more.x) & ((1u << plane.place.w) - 1u);
                int bit = int(block * plane.place.z) - int(first_byte);
                bit = bit * 8 + int(place.y + within * place.w);
                if (bit >= 32 || bit + int(place.z) <= 0) {
                    continue;
                }
                if (x < bounds.x || x >= bounds.z || y < bounds.y || y >= bounds.w) {
                    continue;
                }
                float value = 1.0;
                if (index != ALPHA || how.z == 0u) {
                    uvec4 wanted = uvec4(x, kind.x, kind.y, 0u);
                    if (wanted != known) {
                        pixel = mean_of(x, y, kind.xy, needed);
                        known = wanted;
                    }
                    value = pixel[index];
                }
                uint bits = encoded(index, value);
                word |= bit < 0 ? bits >> uint(-bit) : bits << uint(bit);
            }
        }
    }
    destination[(plane.place.x + plane_row * plane.place.y + first_byte) >> 2] = word;
}
