ALTER TABLE "posts" ADD COLUMN "published" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "posts" ADD COLUMN "body" text;--> statement-breakpoint
ALTER TABLE "accounts" ALTER COLUMN "name" SET DATA TYPE varchar(200);--> statement-breakpoint
CREATE INDEX "posts_published_index" ON "posts" USING btree ("published");
