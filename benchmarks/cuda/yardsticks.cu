// What a device can do at best, measured in the same run as the kernels: reading, and multiplying.
//
// nvcc -cubin -arch=sm_90 yardsticks.cu

// Read 16 bytes a thread and step, all of them once. block 256, any grid.
extern "C" __global__ void __launch_bounds__(256)
read_all(const uint4 *__restrict__ data, unsigned long long count, unsigned *__restrict__ sink) {
    const unsigned long long step = (unsigned long long)gridDim.x * 256;
    unsigned all = 0;
#pragma unroll 8
    for (unsigned long long i = (unsigned long long)blockIdx.x * 256 + threadIdx.x; i < count; i += step) {
        const uint4 v = data[i];
        all ^= v.x ^ v.y ^ v.z ^ v.w;
    }
    if (all == 0x9E3779B9u) atomicOr(sink, all);  // so that nothing is left out
}

// What a call of Philox consists of, and nothing else: products of 32 by 32 bits, both halves used. Eight chains a thread,
// `rounds` products each. block 256, any grid.
extern "C" __global__ void __launch_bounds__(256)
multiply_all(unsigned *__restrict__ sink, int rounds) {
    unsigned word[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) word[i] = blockIdx.x * 256 + threadIdx.x + i;
    for (int round = 0; round < rounds; ++round)
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned long long product = (unsigned long long)word[i] * 0xD2511F53u;
            word[i] = (unsigned)(product >> 32) ^ (unsigned)product;
        }
    unsigned all = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) all ^= word[i];
    if (all == 0x9E3779B9u) atomicOr(sink, all);
}

// Keeps the stream busy while the host queues what is to be timed. block 32, grid 1.
extern "C" __global__ void __launch_bounds__(32)
wait_for(unsigned long long nanoseconds) {
#ifdef __CUDACC__
    unsigned long long begin, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    } while (now - begin < nanoseconds);
#endif
}
