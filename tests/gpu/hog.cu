// Somebody else's process:   CUDA_VISIBLE_DEVICES=UUID hog GIGABYTES    takes memory of a GPU until its input ends.
#include <cstdio>
#include <cstdlib>

int main(int, char **arguments) {
    for (int i = 0; i < atoi(arguments[1]); ++i) {
        void *piece;
        if (cudaMalloc(&piece, 1u << 30) != cudaSuccess || cudaMemset(piece, 1, 1u << 30) != cudaSuccess)
            return 1;
    }
    cudaDeviceSynchronize();
    puts("taken");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
